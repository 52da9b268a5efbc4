"""Finding a model by its name."""

import os
import re

from .paths import RELEASED
from .tasks import RELEASES

ON_THE_HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # how a name there may look


def find_model(name: str | os.PathLike) -> str | os.PathLike:
    """The folder of the released model for a verb; another name as it is.

    Raises:
        FileNotFoundError: no model is released for the verb, or there is no model of this name.
    """
    if name in RELEASES:
        task = RELEASES[name]
        if (RELEASED / task.released).is_dir():
            return RELEASED / task.released
        raise FileNotFoundError(
            f"model: found no released one for {name}, expected --model FOLDER of one that you "
            f"trained: accelerate launch train_accelerate.py --config {task.recipe}"
        )
    require_model(name)
    return name


def require_model(name: str | os.PathLike) -> None:
    """Makes sure that there is a folder, or a model on the Hub, of a name.

    The Hub is asked only where the name may be one there: where it looks like one, and its first
    part is not on this machine.

    Raises:
        FileNotFoundError: there is neither.
    """
    if os.path.isdir(name):
        return
    place = os.fspath(name)
    missing = f"model: found no folder {place}"
    if not ON_THE_HUB.fullmatch(place) or os.path.lexists(place.partition("/")[0]):
        raise FileNotFoundError(f"{missing}, expected that of a model, or its name on the Hub")
    try:
        from .hub import RepositoryError, ask_for_model
    except ImportError as error:
        raise FileNotFoundError(
            f'{missing}; one on the Hub needs huggingface_hub: pip install -e ".[torch]"'
        ) from error
    try:
        ask_for_model(place)
    except RepositoryError as error:
        raise FileNotFoundError(f"{missing}, and no such model on the Hub: {error}") from None
