"""One tool call of a fake OpenCode server, from `pending` to its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from attrs import define, evolve, field

from opencode_actors.adapters.opencode_decode import tool_title
from opencode_actors.machines.server_events import Todo, ToolPart, ToolState
from opencode_actors.ports import PendingPermission, PendingQuestion, PermissionReply
from opencode_actors.testing.fake_disk import StoredMessage
from opencode_actors.testing.fake_server import FakeServer
from opencode_actors.testing.fake_tools import TOOLS, Shell
from opencode_actors.testing.provider_script import CallTool, is_object

_FORBIDDEN = "The user has specified a rule which prevents you from using this specific tool call."
_REJECTED = "The user rejected permission to use this specific tool call"


@define(eq=False)
class ToolRun:
    """`stops_the_model` once a rejection without a word has ended the whole prompt."""

    server: FakeServer
    message: StoredMessage
    call: CallTool
    stops_the_model: bool = False
    part: ToolPart = field(init=False)
    _arguments: dict[str, Any] = field(init=False, factory=dict[str, Any])

    def __attrs_post_init__(self) -> None:
        self.part = ToolPart(
            id=self.server.disk.new_part_id(self.server.now()),
            message=self.message.info.id,
            tool=self.call.name,
            state=ToolState.PENDING,
            title="",
        )

    @property
    def ended(self) -> bool:
        return self.part.state in (ToolState.COMPLETED, ToolState.ERROR)

    async def run(self) -> None:
        self._put()
        arguments = _read(self.call.arguments)
        if arguments is None or self.call.name not in TOOLS:
            self._put(tool="invalid", state=ToolState.RUNNING)
            self._complete("The arguments provided to the tool are invalid", title="Invalid Tool")
            return
        self._arguments = arguments
        self._put(state=ToolState.RUNNING, title=tool_title(None, arguments), started_at=self.server.now())
        if await self._is_permitted():
            await self._perform()

    async def _is_permitted(self) -> bool:
        action = self._action()
        if action == "deny":
            self._end_badly(_FORBIDDEN)
        if action != "ask":
            return action == "allow"
        asked = PendingPermission(
            request=self.server.disk.new_request_id("per", self.server.now()),
            conversation=self.message.info.conversation,
            permission=self.call.name,
            text=tool_title(None, self._arguments),
            message=self.message.info.id,
        )
        answer = await self.server.ask(asked)
        if answer.reply is not PermissionReply.REJECT:
            return True
        self.stops_the_model = answer.message is None
        why = f" with the following feedback: {answer.message}" if answer.message else "."
        self._end_badly(_REJECTED + why)
        return False

    def _action(self) -> str:
        """By the last rule of its conversation that matches, and else by the last one of its server's config."""
        tool = "edit" if self.call.name in ("write", "edit") else self.call.name
        said = tool_title(None, self._arguments)
        rules = self.server.stored(self.message.info.conversation).rules
        for rule in reversed(rules):
            if fnmatchcase(tool, rule["permission"]) and fnmatchcase(said, rule["pattern"]):
                return rule["action"]
        for key, patterns in reversed(tuple(self.server.permission.items())):
            table = {"*": patterns} if isinstance(patterns, str) else patterns
            for pattern, action in reversed(table.items()):
                if fnmatchcase(tool, key) and fnmatchcase(said, pattern):
                    return str(action)
        return "allow"

    async def _perform(self) -> None:
        match self.call.name:
            case "bash":
                await self._bash()
            case "task":
                await self._task()
            case "question":
                await self._question()
            case "todowrite":
                self._todos()
            case "write":
                self._complete("Wrote file successfully.")
            case _:
                self._complete("")
        await self.server.wait_thawed()

    async def _bash(self) -> None:
        shell = Shell(str(self._arguments.get("command", "")), self.server.spawn)
        await shell.run(self._put)
        self._complete(shell.output, exit_code=shell.exit_code)

    async def _task(self) -> None:
        """A child conversation, answered as any other; its answer is the tool's result."""
        child = self.server.create(
            str(self._arguments.get("description", "")), self.message.info.conversation
        )
        model = self.message.info.model
        self.server.put_user_text(child.id, str(self._arguments.get("prompt", "")), model=model)
        await self.server.start_work(child.id).ended.wait()
        answer = [stored.text for stored in self.server.stored(child.id).in_order()][-1]
        self._complete(f'<task id="{child.id}" state="completed">\n{answer}\n</task>')

    async def _question(self) -> None:
        questions = [item for item in self._arguments.get("questions", []) if is_object(item)]
        asked = PendingQuestion(
            request=self.server.disk.new_request_id("que", self.server.now()),
            conversation=self.message.info.conversation,
            text="\n".join(str(item.get("question", "")) for item in questions),
            options=tuple(str(option["label"]) for item in questions for option in item.get("options", [])),
            questions=len(questions),
            message=self.message.info.id,
        )
        answer = await self.server.ask(asked)
        if answer.answers is None:
            self.stops_the_model = True
            self._end_badly("The user dismissed this question")
            return
        told = ", ".join(choice for answers in answer.answers for choice in answers)
        self._complete(f"User has answered your questions: {told}", title=f"Asked {len(questions)} question")

    def _todos(self) -> None:
        items: list[Mapping[str, Any]] = self._arguments.get("todos", [])
        todos = tuple(
            Todo(content=item["content"], status=item["status"], priority=item.get("priority", ""))
            for item in items
        )
        self.server.put_todos(self.message.info.conversation, todos)
        self._complete(json.dumps(items), title=f"{len(todos)} todos")

    # ---- its states

    def abort(self) -> None:
        if self.ended:
            return
        if self.call.name == "bash":
            self._complete("User aborted the command")
        else:
            self._end_badly("Tool execution aborted")

    def _complete(self, outcome: str, *, title: str | None = None, exit_code: int | None = None) -> None:
        self.message.outcomes.append(outcome)
        self._put(
            state=ToolState.COMPLETED,
            title=self.part.title if title is None else title,
            exit_code=exit_code,
            ended_at=self.server.now(),
        )

    def _end_badly(self, error: str) -> None:
        self.message.outcomes.append(error)
        self._put(state=ToolState.ERROR, error=error, ended_at=self.server.now())

    def _put(self, **changes: Any) -> None:
        self.part = evolve(self.part, **changes)
        self.server.put_part(self.message, self.part)


def abort_tools(tools: Iterable[ToolRun]) -> None:
    for tool in tools:
        tool.abort()


def _read(arguments: str) -> dict[str, Any] | None:
    try:
        value = json.loads(arguments)
    except ValueError:
        return None
    return value if is_object(value) else None
