"""May this token write there? Asked before anything is built or sent."""

from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import HFValidationError, validate_repo_id

from .client import PublishError, call, refusal
from .remote import RepoState, read_repo


def check_repo_id(repo_id: str) -> None:
    """
    Raises:
        PublishError: when `repo_id` is no `NAMESPACE/NAME`.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} is no repository id: {error}") from error
    if repo_id.count("/") != 1:
        raise PublishError(f"{repo_id!r} has no namespace. Write NAMESPACE/NAME, for example your-name/{repo_id}.")


def check_rights(api: HfApi, repo_id: str, repo_type: str = "model", create_pr: bool = False) -> str:
    """
    The name of the account that the token belongs to, which may write to `repo_id` (or open a pull request there).

    Raises:
        PublishError: without a token, with a wrong one, a read-only one, or one for another namespace.
    """
    check_repo_id(repo_id)
    account: dict[str, Any] = call("asking the Hub whose token this is", api.whoami)
    name = str(account["name"])
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise PublishError(
            f"The token of {name!r} is read-only. Make a token with write access and set HF_TOKEN to it."
        )
    if create_pr:
        return name
    namespace = repo_id.split("/")[0]
    organisations = {org["name"]: org.get("roleInOrg") for org in account.get("orgs", [])}
    if namespace != name and namespace not in organisations:
        member = f" and to the organisations {', '.join(sorted(organisations))}" if organisations else ""
        raise PublishError(
            f"The token belongs to {name!r}{member}, not to {namespace!r}. Push to {name}/{repo_id.split('/')[1]}, "
            "use a token of that namespace, or propose the change with --pr."
        )
    if organisations.get(namespace) == "read":
        raise PublishError(
            f"{name!r} may only read in the organisation {namespace!r}. Ask its owners for write access."
        )
    try:
        call(f"checking the right to write to {repo_id}", lambda: _auth_check(api, repo_id, repo_type))
    except RepositoryNotFoundError:
        return name  # it will be created
    return name


def _auth_check(api: HfApi, repo_id: str, repo_type: str) -> None:
    try:
        api.auth_check(repo_id, repo_type=repo_type, write=True)
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError as error:
        if error.response.status_code != 404:  # a server without this route decides at the commit
            raise


def open_repo(
    api: HfApi,
    repo_id: str,
    *,
    private: bool = False,
    revision: str = "main",
    repo_type: str = "model",
    space_sdk: str | None = None,
) -> RepoState:
    """
    The repository at `revision`, created (and the branch with it) where it is not there yet.

    Raises:
        PublishError: when it is public and `private` was asked for.
    """
    state = read_repo(api, repo_id, revision, repo_type)
    if private and state.exists and not state.private:
        raise PublishError(
            f"{repo_id} exists and is public; --private cannot hide what is out already. Make it private with "
            f"`hf repos settings {repo_id} --private`, or leave --private out."
        )
    if not state.exists:
        call(
            f"creating {repo_id}",
            lambda: api.create_repo(repo_id, private=private, repo_type=repo_type, exist_ok=True, space_sdk=space_sdk),
        )
        state = read_repo(api, repo_id, revision, repo_type)
    if state.exists and state.head is None:
        call(
            f"creating the branch {revision} of {repo_id}",
            lambda: api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True),
        )
        state = read_repo(api, repo_id, revision, repo_type)
    if state.head is None:
        raise refusal(f"creating {repo_id}", RuntimeError("the Hub does not show it"))
    return state
