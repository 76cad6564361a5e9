"""Our tokenizer against the libraries that define the formats: Hugging Face `tokenizers` and SentencePiece.

Needs the PyPI packages pytest, tokenizers and sentencepiece, and the program tokenizer_probe in $SLUICE_BIN_DIR
(default build/bin).
"""

import json
import os
import pathlib
import random
import subprocess
import unicodedata

import pytest
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROBE = pathlib.Path(os.environ.get("SLUICE_BIN_DIR", ROOT / "build" / "bin")) / "tokenizer_probe"
BUNDLED = ROOT / "deploy" / "models" / "classics-12m"
STRINGS = 20_000

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = r"[一-龥぀-ゟ゠-ヿ]+"
# Qwen3.5's: marks belong to words.
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
OTHER = r"\w+|[^\w\s]+|^\s|\S$|\u00e9|\x{4e00}|(?<=a)b|\p{Han}+|\p{^L}\W?"


def probe(directory, vocab_size, queries, *special):
    """The answers of tokenizer_probe, one for each query."""
    lines = "".join(json.dumps(query) + "\n" for query in queries)
    command = [str(PROBE), str(directory), str(vocab_size), *map(str, special)]
    done = subprocess.run(command, input=lines.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    answers = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    assert len(answers) == len(queries)
    return answers


# --- strings ---

SCRIPTS = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF),
    (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F),
    (0x2150, 0x218F), (0x2190, 0x21FF), (0x2460, 0x24FF), (0x2580, 0x259F), (0x3000, 0x30FF), (0x4E00, 0x4EFF),
    (0xAC00, 0xACFF), (0xE000, 0xE010), (0xFB00, 0xFB06), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x10400, 0x1044F),
    (0x1D400, 0x1D4FF), (0x1F300, 0x1F6FF), (0x20000, 0x2003F),
]
SPACES = list(" \t\n\r\x0b\x0c\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff")
CODE = ["def f(x):\n    return x ** 2\n", "for (int i = 0; i < n; ++i) {\n\t\ta[i] = i;\n}\r\n", "x=1;y= 2 ;", "<a href=\"b\">c</a>",
        "https://a.example/b?c=d&e=%20#f", "/* ... */", "SELECT * FROM t;", "\\n\\t", "a_b-c.d,e;f:g!h?i", "{[()]}"]
WORDS = ("the of and to in is that it was for on with as his he be at by this had not are but from or have an they which one you "
         "were her all she there would their we him been has when who will more no if out so said what up its about into "
         "don't I'm we'll they've she'd it's you're DON'T I'M We'Ll IT'S can`t ’s").split()
SPECIALS = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", " <|im_start|>", "<|im_start|> \t", "<|im", "<mask>",
            "  <mask>  ", "<pad>", "<word>", "a<word>", "<word> <word>", "<0x41>", "<x>", "▁", "▁▁", "é", "Ġ", "  <rs>   <rs> "]
EMOJI = ["🙂", "👩\u200d👩\u200d👧\u200d👦", "🏴\U000e0067\U000e0062\U000e007f", "❤️", "👍🏽", "1️⃣", "🇩🇪"]


def assigned(code):
    return unicodedata.category(chr(code)) not in ("Cn", "Cs")


def piece(rng):
    kind = rng.randrange(14)
    if kind == 0:
        low, high = rng.choice(SCRIPTS)
        return "".join(chr(c) for c in (rng.randint(low, high) for _ in range(rng.randint(1, 12))) if assigned(c))
    if kind == 1:
        return rng.choice(SPACES) * rng.randint(1, 6)
    if kind == 2:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 6)))
    if kind == 3:
        return "".join(chr(rng.randint(0, 0x1F)) for _ in range(rng.randint(1, 4))) + rng.choice(["", "\x7f", "\x9f"])
    if kind == 4:
        return rng.choice(CODE)
    if kind == 5:
        return str(rng.randrange(10 ** rng.randint(1, 15))) + rng.choice(["", "th", ".5", "½", "Ⅷ", "٣"])
    if kind == 6:
        return rng.choice(SPECIALS)
    if kind == 7:
        return rng.choice(EMOJI) * rng.randint(1, 3)
    if kind == 8:
        return rng.choice("aA .-=\n▁é😀字") * rng.randint(1, 200)
    if kind == 9:
        while True:
            code = rng.randrange(0x110000)
            if assigned(code):
                return chr(code)
    return rng.choice(["", " "]).join(rng.choice(WORDS) + rng.choice([" ", "", ", ", ".\n"]) for _ in range(rng.randint(1, 8)))


def strings(seed, count):
    rng = random.Random(seed)
    fixed = ["", " ", "  ", "\n", "▁", "▁▁a", "a", " a", "a ", "<s>", "</s>a", "a</s> b", "\0", "\u180e", "ſ's'S 'ſ"]
    return fixed + ["".join(piece(rng) for _ in range(rng.randint(1, 6))) for _ in range(count - len(fixed))]


# --- tokenizers ---

def corpus():
    rng = random.Random(7)
    return ["".join(piece(rng) for _ in range(8)) for _ in range(3000)] + CODE * 20


def added_tokens():
    return [
        AddedToken("<|im_start|>", special=True, normalized=False),
        AddedToken("<|im_start|>x", special=True, normalized=False),
        AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("<word>", single_word=True, normalized=True),
        AddedToken("<rs>", rstrip=True),
        AddedToken("it was", normalized=True),
        AddedToken("naïve \n", normalized=False),
    ]


def with_bos(tokenizer, bos, eos):
    ids = [(token, tokenizer.token_to_id(token)) for token in (bos, eos)]
    return processors.TemplateProcessing(single=f"{bos} $A {eos}", pair=f"{bos} $A $B", special_tokens=ids)


def train_byte_level(pre_tokenizer=None, vocab_size=2000):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, special_tokens=["<|endoftext|>", "<pad>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False), with_bos(tokenizer, "<|endoftext|>", "<pad>")])
    tokenizer.add_tokens(added_tokens())
    return tokenizer


def train_metaspace(scheme="first", split=True, vocab_size=2000):
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme, split=split)])
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, limit_alphabet=200,
                                  special_tokens=["<unk>", "<s>", "</s>"] + bytes_, max_token_length=16)
    tokenizer.train_from_iterator([line[:200] for line in corpus()], trainer)
    tokenizer.post_processor = with_bos(tokenizer, "<s>", "</s>")
    # The byte pieces belong to the model's vocabulary alone.
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_tokens(added_tokens())
    return tokenizer


def edit(tokenizer, change):
    data = json.loads(tokenizer.to_str())
    change(data)
    return Tokenizer.from_str(json.dumps(data))


def save(tokenizer, directory):
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def compare(tokenizer, directory, texts, decode_special=True):
    """Ids with and without special tokens and the decoded text, for every text."""
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    for special in (False, True):
        ours = probe(directory, size, [{"text": text, "special": special} for text in texts])
        theirs = tokenizer.encode_batch(texts, add_special_tokens=special)
        for text, mine, expected in zip(texts, ours, theirs):
            assert mine["ids"] == expected.ids, (text, special, [tokenizer.id_to_token(i) for i in mine["ids"]],
                                                 expected.tokens)
        if special and not decode_special:
            continue
        decoded = tokenizer.decode_batch([encoding.ids for encoding in theirs], skip_special_tokens=True)
        for text, mine, expected in zip(texts, ours, decoded):
            assert mine["decoded"] == expected, (text, special)


@pytest.fixture(scope="module")
def byte_level():
    return train_byte_level()


@pytest.fixture(scope="module")
def metaspace():
    return train_metaspace()


def test_bundled():
    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    # The file names no special tokens (convert_sentencepiece.py says why), so the library would write BOS out.
    compare(tokenizer, BUNDLED, strings(1, STRINGS), decode_special=False)


def test_byte_level(byte_level, tmp_path):
    compare(byte_level, save(byte_level, tmp_path), strings(2, STRINGS))


def test_metaspace(metaspace, tmp_path):
    compare(metaspace, save(metaspace, tmp_path), strings(3, STRINGS))


@pytest.mark.parametrize("scheme", ["always", "never", "first"])
@pytest.mark.parametrize("split", [True, False])
def test_metaspace_variants(scheme, split, tmp_path):
    tokenizer = train_metaspace(scheme, split, vocab_size=1000)
    compare(tokenizer, save(tokenizer, tmp_path), strings(4, 2000))


def test_llama2_form(metaspace, tmp_path):
    def change(data):
        data["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
        data["pre_tokenizer"] = None
        data["decoder"] = {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    tokenizer = edit(metaspace, change)
    compare(tokenizer, save(tokenizer, tmp_path), strings(5, 4000))


def split_then_bytes(pattern, behavior, invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, behavior, invert),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE_TOKENIZERS = {
    "gpt2": split_then_bytes(Regex(GPT2), "isolated"),
    "llama3": split_then_bytes(Regex(LLAMA3), "isolated"),
    "deepseek": split_then_bytes(Regex(DEEPSEEK), "isolated"),
    "other": split_then_bytes(Regex(OTHER), "isolated"),
    "empty_matches": split_then_bytes(Regex(r"\s*"), "isolated"),
    "inverted": split_then_bytes(Regex(GPT2), "removed", True),
    "previous": split_then_bytes(Regex(r"\s"), "merged_with_previous"),
    "next": split_then_bytes(Regex(r"\s"), "merged_with_next"),
    "contiguous": split_then_bytes(Regex(r"[^\S\n]|\d"), "contiguous"),
    "removed": split_then_bytes("a", "removed"),
    "string_next": split_then_bytes("the", "merged_with_next"),
    "prefix_space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                       pre_tokenizers.ByteLevel(add_prefix_space=True)]),
    "digit_runs": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False),
                                           pre_tokenizers.ByteLevel(add_prefix_space=False)]),
}


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_pre_tokenizers(byte_level, name, ignore_merges, tmp_path):
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
    tokenizer = edit(tokenizer, lambda data: data["model"].update(ignore_merges=ignore_merges))
    compare(tokenizer, save(tokenizer, tmp_path), strings(6, 2000))


def test_merges_as_strings(byte_level, tmp_path):
    def change(data):
        data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    save(byte_level, tmp_path)
    data = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    change(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    compare(byte_level, tmp_path, strings(7, 1000))


def test_unknown(metaspace, tmp_path):
    for fuse in (False, True):
        tokenizer = edit(metaspace, lambda data: data["model"].update(byte_fallback=False, fuse_unk=fuse))
        compare(tokenizer, save(tokenizer, tmp_path / str(fuse)), strings(8, 1000))
    tokenizer = edit(metaspace, lambda data: data["model"].update(byte_fallback=False, unk_token=None))
    compare(tokenizer, save(tokenizer, tmp_path / "none"), strings(9, 1000))


def test_replace_with_regex(byte_level, tmp_path):
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r" {2,}|\d+(?=\s)"), "_"),
                                                 normalizers.Replace("_", "<>")])
    compare(tokenizer, save(tokenizer, tmp_path), strings(10, 2000))


MARKS = [chr(c) for c in (0x300, 0x301, 0x302, 0x307, 0x308, 0x316, 0x323, 0x327, 0x345, 0x5B0, 0x64B, 0x93C, 0x1DC0, 0x20DD,
                          0x3099, 0x1D165)]


def marked(seed, count):
    """Strings whose normal forms differ from them: marks in any order, Hangul, compatibility characters, exclusions."""
    rng = random.Random(seed)
    bases = ["a", "e", "\u00e9", "\u1e69", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u212b", "\u2126", "\uf900", "\ufb01", "\u0958",
             "\u30ab", "\u2adc", "\u1d15e", "\u0344", "\uff21", "\u3392", "\ufdfa", " ", "<word>", "it was"]
    make = lambda: rng.choice(bases) + "".join(rng.choice(MARKS) for _ in range(rng.choice([0, 1, 2, 5, 40])))
    return ["".join(make() for _ in range(rng.randint(1, 6))) for _ in range(count)]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_unicode_forms(byte_level, form, tmp_path):
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    tokenizer.normalizer = getattr(normalizers, form)()
    compare(tokenizer, save(tokenizer, tmp_path), strings(17, 2000) + marked(18, 3000))


def test_qwen_style(byte_level, tmp_path):
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split_then_bytes(Regex(QWEN35), "isolated")
    compare(tokenizer, save(tokenizer, tmp_path), strings(19, STRINGS - 5000) + marked(20, 5000))


def test_gpt_neox_style(byte_level, tmp_path):
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pair = lambda token: (token, tokenizer.token_to_id(token))
    tokenizer.post_processor = processors.RobertaProcessing(pair("<pad>"), pair("<|endoftext|>"))
    compare(tokenizer, save(tokenizer, tmp_path), strings(21, STRINGS - 5000) + marked(22, 5000))


def test_bert_processing(byte_level, tmp_path):
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    pair = lambda token: (token, tokenizer.token_to_id(token))
    tokenizer.post_processor = processors.BertProcessing(pair("<pad>"), pair("<|endoftext|>"))
    compare(tokenizer, save(tokenizer, tmp_path), strings(23, 500))


def test_byte_level_normalizer(byte_level, tmp_path):
    """The text is turned into the alphabet first; the model then works on its characters."""
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.ByteLevel()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u0120", "merged_with_next")
    compare(tokenizer, save(tokenizer, tmp_path), strings(24, 4000) + marked(25, 1000))


def test_random_ids_byte_level(byte_level, tmp_path):
    """Any ids, also those that make no valid UTF-8; and the stream gives what the whole gives."""
    rng = random.Random(11)
    size = byte_level.get_vocab_size()
    sequences = [[rng.randrange(size) for _ in range(rng.randint(0, 20))] for _ in range(5000)]
    answers = probe(save(byte_level, tmp_path), size, [{"ids": ids} for ids in sequences])
    for ids, answer, expected in zip(sequences, answers, byte_level.decode_batch(sequences)):
        assert answer["decoded"] == expected == answer["streamed"], ids


def test_random_ids_metaspace(metaspace, tmp_path):
    """Without bytes: the library gives up a whole run of bytes if any of it is invalid, which no stream can."""
    rng = random.Random(12)
    size = metaspace.get_vocab_size()
    pool = [i for i in range(size) if not metaspace.id_to_token(i).startswith("<0x")]
    sequences = [[rng.choice(pool) for _ in range(rng.randint(0, 20))] for _ in range(5000)]
    answers = probe(save(metaspace, tmp_path), size, [{"ids": ids} for ids in sequences])
    for ids, answer, expected in zip(sequences, answers, metaspace.decode_batch(sequences)):
        assert answer["decoded"] == expected == answer["streamed"], ids


# --- SentencePiece ---

def compare_sentencepiece(directory, texts, seed):
    library = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    size = library.vocab_size()
    for text, answer in zip(texts, probe(directory, size, [{"text": text} for text in texts])):
        ids = library.encode(text)
        assert answer["ids"] == ids, text
        assert answer["decoded"] == library.decode(ids), text
    # Control tokens join what is left and right of them here, there they separate it: left out.
    rng = random.Random(seed)
    pool = [i for i in range(size) if not library.is_control(i)]
    bytes_ = [i for i in pool if library.is_byte(i)] or pool
    sequences = [[rng.choice(rng.choice((pool, bytes_))) for _ in range(rng.randint(0, 12))] for _ in range(5000)]
    for ids, answer in zip(sequences, probe(directory, size, [{"ids": ids} for ids in sequences])):
        assert answer["decoded"] == library.decode(ids) == answer["streamed"], ids


def test_bundled_sentencepiece(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((BUNDLED / "tokenizer.model").read_bytes())
    compare_sentencepiece(tmp_path, strings(13, STRINGS), 14)


@pytest.mark.parametrize("options", [
    dict(byte_fallback=True, user_defined_symbols=["<|im_start|>", "the", "▁ab", "it was"]),
    dict(byte_fallback=False, add_dummy_prefix=False),
    dict(byte_fallback=True, remove_extra_whitespaces=True),
    dict(byte_fallback=False, remove_extra_whitespaces=True, add_dummy_prefix=False, user_defined_symbols=["ab", "it"]),
], ids=["symbols", "no_prefix", "squeeze", "squeeze_no_prefix"])
def test_trained_sentencepiece(options, tmp_path):
    (tmp_path / "corpus").write_text("\n".join(corpus()).replace("\0", ""), encoding="utf-8")
    settings = dict(remove_extra_whitespaces=False) | options
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus"), model_prefix=str(tmp_path / "tokenizer"), model_type="bpe", vocab_size=1200,
        normalization_rule_name="identity", character_coverage=0.98, minloglevel=2, **settings)
    compare_sentencepiece(tmp_path, strings(15, 3000), 16)


def test_library_version():
    """Printed with -rA or on failure of the others: what "equal" was measured against."""
    print("tokenizers", tokenizers.__version__, "sentencepiece", sentencepiece.__version__)
