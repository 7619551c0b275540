"""An export put on the Hugging Face Hub, by the Hub's own client."""

from pathlib import Path


class HubError(RuntimeError):
    """The Hub does not take an export."""


def require_login(repository: str) -> None:
    """Refuse a repository's name that cannot be, and to begin without being known to the Hub.

    Args:
        repository: OWNER/NAME.

    Raises:
        HubError: The name is none, the Hub cannot be reached, or does not know who asks.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise HubError(f"{repository!r} cannot be a repository: {error}") from error
    if "/" not in repository:
        raise HubError(f"{repository!r} cannot be a repository: give OWNER/NAME")
    try:
        HfApi().whoami()
    except Exception as error:  # of the client, of the network, or no token at all
        raise HubError(
            f"the Hub does not know who pushes: `hf auth login`, or set HF_TOKEN ({_first(error)})"
        ) from error


def push_to_hub(folder: Path, repository: str, *, private: bool = False) -> str:
    """Put all files of an export into a repository, in one commit; it is made if it is not there.

    What another export has left there of networks goes in the same commit.

    Args:
        folder: Of the export.
        repository: OWNER/NAME.
        private: Whether a repository that is made is seen by its owner alone.

    Returns:
        The address of the commit.

    Raises:
        HubError: The Hub does not take it.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Networks of an export",
            delete_patterns=["*/network*", "*/weights.safetensors", "merged.*", "masks.json"],
        )
    except Exception as error:
        raise HubError(
            f"{folder} is written, and the Hub does not take it: {_first(error)}"
        ) from error
    return str(commit.commit_url)


def _first(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
