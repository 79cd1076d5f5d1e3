"""A ``sentinel://`` URL names its Sentinels and the primary, or is refused when the configuration is loaded."""

from __future__ import annotations

import pytest

from kvworker.errors import ConfigurationError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.sentinel import PrimaryConnection
from kvworker.settings import Settings, redacted_url
from kvworker.settings.sentinel_urls import SentinelAddress, first_sentinel_url, sentinel_address


def loaded(url: str) -> str:
    queue = Settings.from_mapping({"queue": {"broker_url": url}}).queue
    assert queue.result_backend == queue.broker_url
    return queue.broker_url


@pytest.mark.parametrize(
    ("url", "normalized"),
    [
        ("sentinel://h?master_name=m", "sentinel://h:26379/0?master_name=m"),
        ("SENTINEL://h:1/?master_name=m", "sentinel://h:1/0?master_name=m"),
        ("sentinel://u:p@h,[::1],i:7/3?master_name=m", "sentinel://u:p@h:26379,[::1]:26379,i:7/3?master_name=m"),
        ("sentinel://:p@h:1/2;sentinel://i:2/2?master_name=m", "sentinel://:p@h:1,i:2/2?master_name=m"),
        ("sentinel://:p@h/2;sentinel://:p@i/2?master_name=m", "sentinel://:p@h:26379,i:26379/2?master_name=m"),
        ("sentinel://:p;a,b@h,h?master_name=m", "sentinel://:p%3Ba%2Cb@h:26379/0?master_name=m"),
    ],
)
def test_each_form_becomes_one_list(url: str, normalized: str) -> None:
    assert loaded(url) == normalized
    assert loaded(normalized) == normalized


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("sentinel://h", "add ?master_name=NAME"),
        ("sentinel://h/1?master_name=", "its parameter master_name should have a value"),
        ("sentinel://?master_name=m", "each Sentinel should be host:port, separated by commas"),
        ("sentinel://h,?master_name=m", "each Sentinel should be host:port, separated by commas"),
        ("sentinel://h:0?master_name=m", "its port should be between 1 and 65535"),
        ("sentinel://h:99999?master_name=m", "its port should be between 1 and 65535"),
        (f"sentinel://h,{'i' * 64}?master_name=m", "its host name is not valid"),
        ("sentinel://h/0?master_name=m;sentinel://i/0?master_name=m", "its parameters once, after the last Sentinel"),
        ("sentinel://h?master_name=m%0A", "its master_name should hold no control characters"),
        ("sentinel://h;i?master_name=m", "each Sentinel should be host:port, separated by commas"),
        ("sentinel://h;redis://i?master_name=m", "each Sentinel should be host:port, separated by commas"),
        ("sentinel://h/zero?master_name=m", "its path should be the number of a Redis database"),
        ("sentinel://h/1;sentinel://i/2?master_name=m", "give user, password and database once"),
        ("sentinel://:hidden@h;sentinel://:p@i?master_name=m", "give user, password and database once"),
        ("sentinel://u:hid/den@h?master_name=m", "in a user name or password, write : / ? # @ percent-encoded"),
        ("sentinel://u:hid@den@h?master_name=m", "in a user name or password, write : / ? # @ percent-encoded"),
        ("sentinel://h?master_name=m&ssl_ca_certs=x", "TLS, which is not supported with sentinel://"),
        ("sentinel://h?master_name=m&db=1", "the parameter 'db' is not supported here"),
        ("sentinel://h?master_name=m&min_other_sentinels=1", "'min_other_sentinels' is not supported here; known are"),
        ("redis://h?master_name=m", "the parameter 'master_name' is not supported here"),
    ],
)
def test_an_unusable_url_is_refused_and_not_shown(url: str, part: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(url)
    assert str(caught.value).startswith("queue.broker_url: ")
    assert part in str(caught.value)
    assert "hid" not in str(caught.value)


def test_connections_get_the_whole_address_and_celery_one_host() -> None:
    url = loaded("sentinel://u:p@h,i:7/3?master_name=a%20b&sentinel_username=s&sentinel_password=q&protocol=2")
    address = SentinelAddress((("h", 26379), ("i", 7)), "a b", "s", "q")
    assert sentinel_address(url) == address
    assert first_sentinel_url(url) == "sentinel://u:p@h:26379/3?protocol=2"
    app = make_celery(Settings.from_mapping({"queue": {"broker_url": url}}))
    assert app.conf.broker_url == "sentinel://u:p@h:26379/3"
    assert app.conf.broker_transport_options["connection_parameters"] == {"protocol": 2, "sentinel": address}
    parameters = app.backend.connparams
    assert parameters["connection_class"] is PrimaryConnection
    assert (parameters["sentinel"], parameters["db"], parameters["password"]) == (address, 3, "p")


def test_no_other_url_has_an_address() -> None:
    assert sentinel_address("redis://h/1") is None


def test_no_password_is_shown() -> None:
    url = loaded("sentinel://:hidden@h?master_name=m&sentinel_password=secret")
    assert redacted_url(url) == "sentinel://:***@h:26379/0?master_name=m&sentinel_password=***"
    assert "secret" not in repr(sentinel_address(url))
