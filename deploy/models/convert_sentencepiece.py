#!/usr/bin/env python3
"""Writes the tokenizer.json that is equal to a SentencePiece BPE tokenizer.model.

    convert_sentencepiece.py deploy/models/classics-12m

reads DIR/tokenizer.model and writes DIR/tokenizer.json, in the form that Llama 2's has: the space in front and the
replacement of spaces by U+2581 are a normalizer, there is no pre-tokenizer, and BOS comes from a template. Unlike
Llama 2's it names no added tokens, so that a text that contains "<s>" is just these three characters, as it is for
SentencePiece: nobody can write a control token into a prompt. Needs nothing but Python 3.
"""

import json
import pathlib
import struct
import sys

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BPE = 2
SPACE = "\u2581"


def fields(message):
    """Yields (number, value) of a protobuf message: ints, floats for fixed32, bytes for the rest."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}[wire] if wire != 2 else varint()
        value = message[at:at + size]
        at += size
        yield number, struct.unpack("<f", value)[0] if wire == 5 else value


def read_model(data):
    """The pieces as (text, score, type), and the trainer's and normalizer's fields."""
    pieces, trainer, normalizer = [], {}, {}
    for number, value in fields(data):
        if number == 1:
            piece = dict(fields(value))
            pieces.append((piece[1].decode(), piece.get(2, 0.0), piece.get(3, NORMAL)))
        elif number == 2:
            trainer = dict(fields(value))
        elif number == 3:
            normalizer = dict(fields(value))
    return pieces, trainer, normalizer


def check(pieces, trainer, normalizer):
    if trainer.get(3, 1) != BPE:
        raise SystemExit("tokenizer.model: trainer_spec.model_type must be BPE")
    if normalizer.get(2):
        raise SystemExit("tokenizer.model: normalizer_spec must be the identity")
    if not normalizer.get(3, 1) or normalizer.get(4, 1) or not normalizer.get(5, 1):
        raise SystemExit("tokenizer.model: needs add_dummy_prefix and escape_whitespaces, no remove_extra_whitespaces")
    if not trainer.get(35, 0):
        raise SystemExit("tokenizer.model: needs byte_fallback")
    if any(kind in (USER_DEFINED, UNUSED) for _, _, kind in pieces):
        raise SystemExit("tokenizer.model: user-defined and unused pieces are not converted")


def merges(pieces):
    """Every cut of every piece into two pieces; SentencePiece merges in the order of the scores."""
    ids = {text: i for i, (text, _, kind) in enumerate(pieces) if kind == NORMAL}
    found = []
    for text, i in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-pieces[i][1], i, ids[left], ids[right], [left, right]))
    return [pair for *_, pair in sorted(found)]


def convert(pieces, trainer):
    bos = trainer.get(41, 1)
    bos_piece = pieces[bos][0]
    unknown = next(text for text, _, kind in pieces if kind == UNKNOWN)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": bos_piece, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": bos_piece, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos_piece, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos_piece: {"id": bos_piece, "ids": [bos], "tokens": [bos_piece]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {text: i for i, (text, _, _) in enumerate(pieces)},
            "merges": merges(pieces),
        },
    }


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    directory = pathlib.Path(sys.argv[1])
    pieces, trainer, normalizer = read_model((directory / "tokenizer.model").read_bytes())
    check(pieces, trainer, normalizer)
    text = json.dumps(convert(pieces, trainer), ensure_ascii=False, indent=1)
    (directory / "tokenizer.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
