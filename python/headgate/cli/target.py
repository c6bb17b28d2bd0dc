"""Which gateway a command calls and with which token: options, then variables, then the current context, then this machine's.

A token goes only to the address it was made for, and never in clear text beyond this machine. Not here: the call (``client``).
Next: client.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from headgate.cli.address import DEFAULT, AdminAddress, admin_address
from headgate.cli.contexts import Context, Contexts, contexts_file, read_contexts
from headgate.errors import InvalidArgument, PermissionDenied, Unauthenticated
from headgate.gateway.units import default_state
from headgate.private_files import state_place


@dataclass(frozen=True)
class Target:
    """Where to call and as whom."""

    address: AdminAddress
    token: str


@dataclass(frozen=True)
class GatewayOptions:
    """What the options of a command say about it; ``None`` where nothing was written."""

    admin: str | None = None
    state: Path | None = None
    context: str | None = None

    def named_state(self, variables: Mapping[str, str]) -> Path | None:
        """The state folder that the option or the variable names."""
        written = variables.get("HEADGATE_STATE")
        return self.state or (Path(written) if written else None)

    def state_folder(self, variables: Mapping[str, str]) -> Path:
        """Where the state lies: in the folder that is named, else in the usual one."""
        return state_place(self.named_state(variables) or default_state(variables))


@dataclass(frozen=True)
class _Credential:
    """A token that could be sent: whose it is, how it is read, and the address it was made for (``None``: not said)."""

    origin: str
    read: Callable[[], str]
    made_for: AdminAddress | None


def find_target(options: GatewayOptions, variables: Mapping[str, str]) -> Target:
    """The target of a command; :class:`Unauthenticated` or :class:`PermissionDenied` without a token for it."""
    finder = _TargetFinder(options, variables)
    address = finder.address()
    credential = _choose(finder, address)
    if not address.is_private:
        raise PermissionDenied(
            f"{address} is another machine and takes clear text: a token is sent there over TLS only; name it as "
            f"https://, or call it through a tunnel, such as `ssh -L 8003:127.0.0.1:8003 {address.host}`"
        )
    return Target(address, _checked(credential.read(), credential.origin))


def read_addresses(state: Path) -> dict[str, str]:
    """The bound addresses that a gateway left in its state folder; empty when there are none."""
    try:
        found = json.loads((state / "addresses.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Absent, unreadable for this user, or cut off by a crash: then the default address is as good a guess.
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


class _TargetFinder:
    """What each source says, from the strongest to the weakest."""

    def __init__(self, options: GatewayOptions, variables: Mapping[str, str]) -> None:
        if options.context is not None and (options.admin is not None or options.state is not None):
            raise InvalidArgument(
                "--context names a gateway with its address and token: give it without --admin and --state"
            )
        self._options = options
        self._variables = variables
        self._named = options.named_state(variables)
        self.state = options.state_folder(variables)

    def address(self) -> AdminAddress:
        """The first that is said."""
        options, variable = self._options, self._variables.get("HEADGATE_ADMIN")
        if options.admin is not None:
            return admin_address(options.admin)
        if options.context is not None:
            return self._of(self._contexts().get(options.context))
        if options.state is not None:
            return self._left_in_state()
        if variable:
            return admin_address(variable, "HEADGATE_ADMIN")
        found = None if self._variables.get("HEADGATE_STATE") else self._context(None)
        return self._left_in_state() if found is None else self._of(found[1])

    def credentials(self) -> Iterator[_Credential]:
        """Every token that is known, the strongest first."""
        variable = self._variables.get("HEADGATE_TOKEN")
        if variable:
            written = self._variables.get("HEADGATE_ADMIN")
            made_for = admin_address(written, "HEADGATE_ADMIN") if written else None
            yield _Credential("HEADGATE_TOKEN", lambda: variable, made_for)
        # With a state folder the file of contexts is not needed, and a broken one must not be in the way.
        if self._named is not None:
            yield self._of_state()
            yield from self._of_context()
        else:
            yield from self._of_context()
            yield self._of_state()

    def _of_context(self) -> Iterator[_Credential]:
        found = self._context(self._options.context)
        if found is not None:
            name, context = found
            yield _Credential(
                f"the token of context {name}", lambda: _token_of(name, context), self._of(context)
            )

    def _of_state(self) -> _Credential:
        path = self.state / "admin-token"
        return _Credential(f"the token in {path}", lambda: _read(path), self._left_in_state())

    def _left_in_state(self) -> AdminAddress:
        left = read_addresses(self.state).get("admin")
        return DEFAULT if left is None else admin_address(left, str(self.state / "addresses.json"))

    def _context(self, name: str | None) -> tuple[str, Context] | None:
        """The context of that name, else that of the variable, else the current one."""
        name = name or self._variables.get("HEADGATE_CONTEXT")
        contexts = self._contexts()
        name = name or contexts.current
        return None if name is None else (name, contexts.get(name))

    def _contexts(self) -> Contexts:
        return read_contexts(contexts_file(self._variables))

    def _of(self, context: Context) -> AdminAddress:
        return admin_address(context.admin, "the context's address")


def _choose(finder: _TargetFinder, address: AdminAddress) -> _Credential:
    """The first token that was made for the address."""
    others = []
    for credential in finder.credentials():
        if credential.made_for in (None, address):
            return credential
        others.append(f"{credential.origin} is for {credential.made_for}")
    raise PermissionDenied(
        f"no token for {address}: {'; '.join(others)}; a token is sent only to the address it was made for: set "
        "HEADGATE_TOKEN, or `headgate context add` it with its address"
    )


def _token_of(name: str, context: Context) -> str:
    if context.token is not None:
        return context.token
    if context.token_file is None:
        raise Unauthenticated(
            f"context {name} has no token; `headgate context add {name} --replace` gives it one"
        )
    return _read(Path(context.token_file).expanduser())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Unauthenticated(
            f"no token: HEADGATE_TOKEN is not set and {path} cannot be read ({reason}); set the variable, or name the "
            "gateway's state folder with --state DIR"
        ) from error


def _checked(token: str, origin: str) -> str:
    token = token.strip()
    if not token or not all("!" <= letter <= "~" for letter in token):
        raise Unauthenticated(f"{origin} is not one: a token is printable ASCII without spaces")
    return token
