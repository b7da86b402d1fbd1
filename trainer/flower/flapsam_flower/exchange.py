"""Who is there, and what is still to come: orders to sites by name, whichever node each is at, until a deadline."""

import time
from collections.abc import Callable, Mapping
from logging import INFO, WARN

from flwr.app import Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from .wire import content, facts

PAUSE_SECONDS = 0.5


class Exchange:
    """Sites by name. A node says which site it is when it is asked for its enrolment; one that comes back is asked again."""

    def __init__(self, grid: Grid, deadline_seconds: float, again_seconds: float):
        self.grid = grid
        self.deadline_seconds = deadline_seconds
        self.again_seconds = again_seconds
        self.nodes: dict[str, int] = {}
        self.enrolments: dict[str, bytes] = {}
        self._asked: dict[str, int] = {}

    def discover(self) -> None:
        """Asks nodes that are new who they are, and notes the answers."""
        present = set(self.grid.get_node_ids())
        self.nodes = {site: node for site, node in self.nodes.items() if node in present}
        strangers = present - set(self.nodes.values()) - set(self._asked.values())
        for node in sorted(strangers):
            (asked,) = self.grid.push_messages([self._to(node, content(), MessageType.QUERY)])
            self._asked[asked] = node
        for reply in self._pull(self._asked):
            node = self._asked.pop(reply.metadata.reply_to_message_id)
            said = facts(reply)
            if "file" in said:
                log(INFO, "site %s is here (node %s)", said["site"], node)
                self.nodes[said["site"]] = node
                self.enrolments[said["site"]] = said["file"]
            else:
                raise RuntimeError(f"site '{said.get('site', node)}' cannot take part: {reason(reply)}")

    def wait_for(self, sites: list[str]) -> list[bytes]:
        """The enrolments of these sites, when all are there."""

        def missing() -> list[str]:
            self.discover()
            return [site for site in sites if site not in self.nodes]

        self._until(missing, "has enrolled")
        return [self.enrolments[site] for site in sites]

    def ask(self, wanted: Mapping[str, RecordDict], message_type: str) -> dict[str, Message]:
        """What each site answers; whoever has not answered by the deadline is left out.

        A SuperNode that dies takes the order with it, and Flower does not say so if it is back soon. So sites are asked
        again from time to time: one that still trains answers the second order at once with what it made for the first.
        """
        under_way: dict[str, str] = {}
        answers: dict[str, Message] = {}
        asked_at: dict[str, float] = {}

        def missing() -> list[str]:
            self.discover()
            now = time.monotonic()
            for site in wanted:
                due = now - asked_at.get(site, float("-inf")) > self.again_seconds
                if due and site not in answers and site in self.nodes:
                    (sent,) = self.grid.push_messages([self.message(site, wanted[site], message_type)])
                    under_way[sent] = site
                    asked_at[site] = now
            for reply in self._pull(under_way):
                site = under_way.pop(reply.metadata.reply_to_message_id)
                if reply.has_error():
                    log(WARN, "site %s did not answer (%s); it is asked again", site, reason(reply))
                else:
                    answers.setdefault(site, reply)
            return [site for site in wanted if site not in answers]

        self._until(missing, "has answered", required=False)
        return answers

    def _until(self, missing: Callable[[], list[str]], what: str, *, required: bool = True) -> None:
        end = time.monotonic() + self.deadline_seconds
        while absent := missing():
            if time.monotonic() > end:
                why = f"within {self.deadline_seconds:g} s not every site {what}: {', '.join(absent)} lacking"
                if required:
                    raise RuntimeError(why)
                log(WARN, why)
                return
            time.sleep(PAUSE_SECONDS)

    def message(self, site: str, what: RecordDict, message_type: str) -> Message:
        """A message to a site that is here."""
        return self._to(self.nodes[site], what, message_type)

    def _to(self, node: int, what: RecordDict, message_type: str) -> Message:
        return Message(content=what, dst_node_id=node, message_type=message_type, ttl=self.deadline_seconds)

    def _pull(self, asked: Mapping[str, object]) -> list[Message]:
        return list(self.grid.pull_messages(list(asked))) if asked else []


def reason(reply: Message) -> str:
    """Why a site did not do what it was asked for."""
    if reply.has_error():
        return str(reply.error.reason or f"error {reply.error.code}")
    return str(facts(reply).get("refused", "it is no node of this app"))
