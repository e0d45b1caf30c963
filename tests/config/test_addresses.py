"""Addresses of servers: one rule for settings, for the environment and for verify."""

import pytest

from icm_hpc import verify
from icm_hpc.config import credentials, loading
from icm_hpc.config.place import ServerConfig
from icm_hpc.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://host:99999",
            "http://host:0",
            "http://host:abc",
            "http://host:",
            "http://host:-1",
            "http://host:80:90",
        ),
        *(
            "http://ho st:80",
            "http://host:8000\n/v1",
            "http://[::1",
            "http://[::1]x:80",
            "http://300.1.1.1",
            "http://a..b",
        ),
        *("http://host;x", "http://host:$PORT", "http://:8000", "https:/host", "http://" + 70 * "a"),
    ],
)
def test_an_address_that_no_server_can_have_is_refused_at_once_wherever_it_is_given(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="url="):
        ServerConfig(url=url)
    for variable, model in (("VLLM_BASE_URL", "model=tiny"), ("OPENAI_BASE_URL", "engine=openai")):
        monkeypatch.setenv(variable, url)
        with pytest.raises(ConfigError, match=f"{variable} of the environment: (url=|has a space)"):
            credentials.addressed(loading.load([model]))
    with pytest.raises(ConfigError, match="url=http://HOST:PORT"):
        verify.parse([f"url={url}"])


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "HTTPS://my_host-1.site.org:443/v1",
        "http://10.0.0.1:8000",
        "http://[::1]:8000/",
        "http://[::1]",
        "http://bücher.de",
    ],
)
def test_an_address_that_a_server_may_have_is_taken(url: str) -> None:
    assert ServerConfig(url=url).url == url
    assert url.startswith(verify.parse([f"url={url}"]).url)


def test_an_address_with_a_secret_is_not_quoted_by_verify() -> None:
    for url in ("http://me:pass@host:99999", "http://host:99999?key=pass", "http://[host/#pass"):
        with pytest.raises(ConfigError, match="put a key into the secrets file") as refused:
            verify.parse([f"url={url}"])
        assert "pass" not in str(refused.value).replace("user:password@", "")
