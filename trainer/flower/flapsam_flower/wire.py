"""How a file of flapsam's travels in a message of Flower's."""

from flwr.app import ConfigRecord, Message, RecordDict

RECORD = "flapsam"


def content(**facts) -> RecordDict:
    """A message's content: bytes and words."""
    return RecordDict({RECORD: ConfigRecord(facts)})


def facts(message: Message) -> dict:
    """What a message of this app says; nothing if it is of another."""
    return dict(message.content.get(RECORD, {})) if message.has_content() else {}
