"""TLS, client certificates and tokens, to the real daemon."""

import asyncio

import pytest

import sluice
from certificates import Authority
from test_access import digest


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki") / "ours")


def test_token(start_daemon, tmp_path):
    tenants = tmp_path / "tenants"
    tenants.write_text(f"tenant t\ntoken t {digest('secret')}\n")
    daemon = start_daemon(f"--auth_tokens_file={tenants}")
    for token in (None, "wrong"):
        with sluice.Client(daemon.address, token=token) as client, pytest.raises(sluice.UnauthenticatedError) as caught:
            client.complete("The")
    assert caught.value.reason == "UNAUTHENTICATED" and "wrong" not in str(caught.value)
    with sluice.Client(daemon.address, token="secret") as client:
        assert client.complete("The", max_tokens=2).text


def test_tls_with_a_certificate_and_a_token(start_daemon, authority, tmp_path):
    cert, key = authority.issue("server", "/CN=sluiced")
    ours = authority.issue("client", "/CN=worker")
    tenants = tmp_path / "tenants"
    tenants.write_text(f"tenant acme\ncert acme CN=worker\ntenant t\ntoken t {digest('secret')}\n")
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}", f"--tls_client_ca={authority.cert}",
                          f"--auth_tokens_file={tenants}")
    files = sluice.TLS(ca=authority.cert, cert=ours[0], key=str(ours[1]))
    content = sluice.TLS(*(path.read_bytes() for path in (authority.cert, *ours)))
    for options in ({"tls": files}, {"tls": content}, {"tls": files, "token": "secret"}):
        with sluice.Client(daemon.address, **options) as client:
            assert client.complete("The", max_tokens=2).text

    async def body():
        async with sluice.AsyncClient(daemon.address, tls=files, token="secret") as client:
            return (await client.complete("The", max_tokens=2)).text

    assert asyncio.run(body())
    once = {"retry": sluice.NO_RETRY, "timeout": 30}
    for options in ({"tls": True}, {"tls": None}, {"tls": sluice.TLS(ca=authority.cert)}):
        with sluice.Client(daemon.address, **options, **once) as client, pytest.raises(sluice.UnavailableError):
            client.model()


def test_wrong_files(authority, tmp_path):
    with pytest.raises(ValueError, match="together"):
        sluice.Client("localhost:1", tls=sluice.TLS(cert=authority.cert))
    with pytest.raises(FileNotFoundError):
        sluice.Client("localhost:1", tls=sluice.TLS(ca=tmp_path / "none"))
