"""How a model is found by its name, before it is loaded."""

import httpx2
import pytest

from musicvae import hub
from musicvae.finding import find_model, require_model
from musicvae.hub import ANSWER_SECONDS


@pytest.fixture
def requests(tmp_path, monkeypatch) -> list[tuple[str, float]]:
    """The address and the patience of each request, none of which is answered."""
    asked = []

    def ask(address: str, timeout: float) -> None:
        asked.append((address, timeout))
        raise httpx2.ConnectTimeout("timed out")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
    return asked


@pytest.mark.parametrize(
    "name", ["a/b/c", "./grove", "../grove", "/grove", "you/", "bad name", "outputs/grove", "file"]
)
def test_what_can_be_no_name_on_the_hub_is_not_asked_for(name, requests, tmp_path, capsys):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=f"model: found no folder {name}, expected that"):
        require_model(name)
    assert requests == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["grove", "you/grove"])
def test_what_may_be_a_name_on_the_hub_is_asked_for_once_and_for_a_bounded_time(
    name, requests, capsys
):
    message = rf"model: found no folder {name}, .* on the Hub: the Hub cannot be reached \(Conn"
    with pytest.raises(FileNotFoundError, match=message):
        find_model(name)
    ((address, timeout),) = requests
    assert address.endswith(f"/{name}/resolve/main/config.json")
    assert timeout == ANSWER_SECONDS
    assert capsys.readouterr().err == f"Asking the Hub for {name}, up to {ANSWER_SECONDS} s\n"


def test_a_folder_and_what_is_in_the_cache_need_no_hub(requests, tmp_path, monkeypatch):
    (tmp_path / "you/grove").mkdir(parents=True)
    require_model("you/grove")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: "/cache/config.json")
    require_model("another/groove")
    assert requests == []
