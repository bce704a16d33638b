"""Why a machine failed, in a word that programs compare, and in words for who must do something."""

from msgspec import Struct


class Code(Struct, frozen=True):
    """An error code of the fleet. ``remedy``: what an operator can do; the fleet does the rest."""

    name: str
    words: str
    remedy: str


CODES: dict[str, Code] = {
    code.name: code
    for code in (
        # --- the provider did not make it ---
        Code(
            "PROVIDER_OUT_OF_STOCK",
            "The provider has no such machine in this zone now.",
            "Offer more zones or types, or on-demand beside spot: the autoscaler tries the next.",
        ),
        Code(
            "PROVIDER_QUOTA_EXCEEDED",
            "The account may not have so many machines of this type.",
            "Ask the provider for a higher quota, or lower the pool's maximum.",
        ),
        Code(
            "PROVIDER_DENIED",
            "The provider does not let these credentials do it.",
            "Give them the permission that the error's words name.",
        ),
        Code(
            "PROVIDER_INVALID_ORDER",
            "The provider does not understand the order: its type, image, network or options.",
            "Correct the provider's settings; the error's words name what is wrong.",
        ),
        Code(
            "PROVIDER_REFUSED",
            "The provider said no, for a reason that has no code of ours.",
            "Read the error's words; they are the provider's own.",
        ),
        Code(
            "PROVIDER_SILENT",
            "The provider gave no clear answer for as long as it may take to order a machine.",
            "Look at the provider's state page and at this host's way out.",
        ),
        # --- it was made, and never became ready ---
        Code(
            "STARTUP_TIMEOUT",
            "A step of the start took longer than it may.",
            "Read the agent's log (GET /logs on the machine); the progress says which step it was."
            " A heartbeat that comes late, with news, saves the machine for some minutes.",
        ),
        Code(
            "SSH_NOT_ACCESSIBLE",
            "The machine could not be reached or entered over SSH.",
            "Check address, port, user, key and host key; try `ssh` from the scheduler's host.",
        ),
        Code(
            "AGENT_CHECKSUM_FAILED",
            "The agent on the machine is not the file that WORKER_AGENT_SHA256 names.",
            "Install the right agent, or set the checksum of the one you mean"
            " (`make agent-checksum`).",
        ),
        Code(
            "INSTALL_FAILED",
            "Agent or model server could not be installed or started.",
            "Read the error's words and the machine's own log; disk space and drivers are the"
            " usual causes.",
        ),
        # --- it was there, and is lost ---
        Code(
            "WORKER_LOST",
            "The machine is there, but nothing was heard of its agent for minutes.",
            "Look at the machine's console output if the provider keeps it; another one is ordered"
            " when it is wanted.",
        ),
        Code(
            "WORKER_UNREADY",
            "The agent reports, but its model server did not come back.",
            "Read the worker's reason and log: memory that does not suffice is the usual cause.",
        ),
        Code(
            "MACHINE_STOPPED",
            "The machine was stopped, by somebody else or by itself.",
            "Find out who stopped it in the provider's own log.",
        ),
        Code(
            "DELETED_BY_PROVIDER",
            "The provider says that the machine is gone, and we did not ask for that.",
            "Find out who deleted it in the provider's own log.",
        ),
        Code(
            "SPOT_INTERRUPTED",
            "The provider takes the spot machine back.",
            "Nothing; if it happens often, offer other types or zones, or on-demand.",
        ),
        # --- its end takes long ---
        Code(
            "VOLUMES_DELETE_PENDING",
            "The machine is gone, and a disk of it is not deleted yet.",
            "Nothing, it is tried again. If it stays, see who uses the disk at the provider; it is"
            " billed until it is gone.",
        ),
        Code(
            "TERMINATE_PENDING",
            "The provider was asked to delete the machine, and it is still there.",
            "Nothing, it is asked again. If it stays, delete it at the provider: it is billed until"
            " it is gone.",
        ),
        # --- nobody of ours ordered it ---
        Code(
            "ORPHAN",
            "The machine carries this deployment's tag, and no record of it was known.",
            "Nothing. If it happens again, see whether Redis lost data, or whether two deployments"
            " have one name.",
        ),
    )
}


def known(code: str, words: str) -> tuple[str, str]:
    """A provider's code as one of ours: what is none of them is told in its own words."""
    return (code, words) if code in CODES else ("PROVIDER_REFUSED", f"{code}: {words}")
