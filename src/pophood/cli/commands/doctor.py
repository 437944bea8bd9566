"""`pophood doctor`: checks this machine, and on request proves that no data leaves it."""

from __future__ import annotations

from pophood.cli.app import DONE, FAILED
from pophood.cli.options.shared import json_option, option, verb
from pophood.cli.terminal.console import Console


@verb()
@option(
    "--prove-offline",
    is_flag=True,
    section="Other",
    help="Run the demo with every connection forbidden, and print what was attempted.",
)
@json_option
def command(console: Console, prove_offline: bool, as_json: bool) -> int:
    """Check this machine, and say what to do.

    Example: pophood doctor
    """
    if prove_offline:
        from pophood.cli.screens.offline import prove

        return prove(console, as_json)
    from pophood.cli.screens.doctor_facts import examine, lines

    found = examine()
    if as_json:
        console.json(found.as_dict())
    else:
        console.out("\n".join(lines(found)))
    return FAILED if "error" in found.engine else DONE
