"""What others build on, as a daemon shows it: flags, metrics, the fields of HTTP, exit codes.

  python tests/compat/surface.py > tests/compat/surface.json    records it, from the daemon of SLUICE_BIN_DIR

Recorded anew at a release, never to make a test pass: test_compat.py compares each build with what was recorded. At the
same time, in proto/: `buf build --exclude-source-info -o ../tests/compat/proto.binpb`."""

import http.client
import json
import pathlib
import re
import subprocess
import sys
import tempfile

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from harness import BIN, PATIENCE, Daemon, clean_environment

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def help_text(how="--help"):
    return subprocess.run([str(BIN / "sluiced"), how], capture_output=True, text=True, check=True, timeout=PATIENCE,
                          env=clean_environment()).stdout


def flags():
    """Name -> {value: what it takes, default}."""
    rows = re.findall(r"^\| `--(\w+)=((?:[^`\\]|\\.)*)` \| (?:`(.*?)`)? \|", help_text("--help=markdown"), re.M)
    return {name: {"value": value, "default": default} for name, value, default in rows}


def metrics(page):
    """Name -> {type, labels, series}. Series are those that a daemon has from its start, without what differs between two."""
    found = {}
    for line in page.splitlines():
        if match := re.match(r"# TYPE (\S+) (\S+)", line):
            found[match[1]] = {"type": match[2], "labels": set(), "series": set()}
        elif match := re.match(r"([^\s{#]+)(?:\{(.*)\})? ", line):
            name = match[1] if match[1] in found else re.sub(r"_(bucket|sum|count)$", "", match[1])
            labels = [(key, value) for key, value in _LABEL.findall(match[2] or "") if key != "le"]
            found[name]["labels"] |= {key for key, _ in labels}
            fixed = [pair for pair in labels if pair[0] not in VARIABLE]
            found[name]["series"].add(",".join("=".join(pair) for pair in sorted(fixed)))
    return {name: {"type": what["type"], "labels": sorted(what["labels"]), "series": sorted(what["series"])}
            for name, what in sorted(found.items())}


# Labels whose values say which daemon it is.
VARIABLE = {"version", "model", "device", "numerics_id", "model_name", "num_gpu_blocks", "block_size"}


def paths(value, at=""):
    """{"choices[].text: string", ...}: every path of a JSON value, with the kind of what is there."""
    if isinstance(value, dict):
        return {f"{at}: object"}.union(*(paths(inner, f"{at}.{key}".lstrip(".")) for key, inner in value.items()))
    if isinstance(value, list):
        return {f"{at}: array"}.union(*(paths(inner, f"{at}[]") for inner in value))
    kind = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}[type(value)]
    return {f"{at}: {kind}"}


_TEXT = {"prompt": "The", "max_tokens": 3, "seed": 1, "temperature": 0}
_CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "seed": 1, "temperature": 0}
_STREAM = {"stream": True, "stream_options": {"include_usage": True}}
JSON_BODY = {"Content-Type": "application/json"}
# Name -> (method, path, headers, body).
CALLS = {
    "models": ("GET", "/v1/models", {}, None),
    "model": ("GET", "/v1/models/classics-12m", {}, None),
    "completion": ("POST", "/v1/completions", JSON_BODY, {**_TEXT, "logprobs": 2, "echo": True}),
    "completion of two": ("POST", "/v1/completions", JSON_BODY, {**_TEXT, "prompt": ["The", "A"], "n": 2}),
    "completion, streamed": ("POST", "/v1/completions", JSON_BODY, {**_TEXT, **_STREAM, "logprobs": 1}),
    "chat": ("POST", "/v1/chat/completions", JSON_BODY, {**_CHAT, "logprobs": True, "top_logprobs": 2}),
    "chat, streamed": ("POST", "/v1/chat/completions", JSON_BODY, {**_CHAT, **_STREAM, "logprobs": True}),
    "bad field": ("POST", "/v1/completions", JSON_BODY, {**_TEXT, "temperature": -1}),
    "bad JSON": ("POST", "/v1/completions", JSON_BODY, "{"),
    "no such model": ("POST", "/v1/completions", JSON_BODY, {**_TEXT, "model": "other"}),
    "no such path": ("GET", "/v1/nothing", {}, None),
    "wrong method": ("GET", "/v1/completions", {}, None),
    "wrong type": ("POST", "/v1/completions", {"Content-Type": "text/plain"}, _TEXT),
    "page": ("GET", "/", {}, None),
}


def ask(address, method, path, headers, body):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    connection.request(method, path, body if body is None or isinstance(body, str) else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer, answer.read().decode()


def answers(address):
    """Name of the call -> {status, type, fields}."""
    out = {}
    for name, call in CALLS.items():
        answer, text = ask(address, *call)
        kind = answer.getheader("Content-Type", "").split(";")[0]
        fields = set()
        if kind == "application/json":
            fields = paths(json.loads(text))
        elif kind == "text/event-stream":
            events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
            fields = {"[DONE]"} if events[-1] == "[DONE]" else set()
            fields = fields.union(*(paths(json.loads(event)) for event in events if event != "[DONE]"))
        out[name] = {"status": answer.status, "type": kind, "fields": sorted(fields)}
    return out


# What no field of a request may be: whoever knows the field refuses it by its name, and passes over others.
_NONSENSE = {"nonsense": True}
REQUEST_FIELDS = ("model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "min_p", "typical_p",
                  "top_k", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "logit_bias", "min_tokens",
                  "ignore_eos", "include_stop_str_in_output", "stop", "stop_token_ids", "n", "priority", "best_of", "stream",
                  "stream_options", "echo", "logprobs", "top_logprobs")


def request_fields(address):
    """"completions" and "chat/completions" -> the fields that each of them knows."""
    known = {}
    for path, body in (("completions", _TEXT), ("chat/completions", _CHAT)):
        known[path] = []
        for field in REQUEST_FIELDS:
            extra = {"logprobs": True} if field == "top_logprobs" and path == "chat/completions" else {}
            answer, text = ask(address, "POST", f"/v1/{path}", JSON_BODY, {**body, **extra, field: _NONSENSE})
            if answer.status == 400 and json.loads(text)["error"]["param"].split(".")[0] == field:
                known[path].append(field)
    return known


def exit_codes():
    """The numbers that --help lists."""
    text = re.search(r"Exit codes:(.*?)\n\n", help_text(), re.S)[1]
    return sorted({int(code) for code in re.findall(r"(?:^|[\s,])(\d+)(?=[\s:])", text)})


def surface():
    with tempfile.TemporaryDirectory() as sessions:
        daemon = Daemon(f"--session_dir={sessions}", "--http_listen=127.0.0.1:0")
        try:
            daemon.generate("The")  # methods have series of their own once they were called
            _, page = daemon.get("/metrics")
            return {"flags": flags(), "metrics": metrics(page), "exit_codes": exit_codes(),
                    "http": {"answers": answers(daemon.http), "requests": request_fields(daemon.http)}}
        finally:
            daemon.kill()


if __name__ == "__main__":
    json.dump(surface(), sys.stdout, indent=1, sort_keys=True)
    print()
