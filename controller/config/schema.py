"""The YAML file as users write it: each key, its type, its default. Nothing is looked up or filled in here.

The docstring under a key is its help in an editor: ``json_schema`` puts it into ``config-schema.json``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
)
from pydantic.json_schema import WithJsonSchema

from controller.adapters.spec import AdapterSpec
from controller.adapters.spec import Name as AdapterName
from controller.config import values
from runtime.engines.kinds import KINDS, SYNONYMS

PLAIN_TEXT = r"^[^\x00-\x1f\x7f]+$"
SESSION_PREFIX = r"^[A-Za-z0-9_-]+$"

_NUMBER_OR_TEXT: dict[str, Any] = {"type": ["string", "number"]}
_TEXTS = {"type": ["object", "null"], "additionalProperties": _NUMBER_OR_TEXT}
_VARIABLES = {
    "anyOf": [
        {"type": "array", "items": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*="}},
        {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            "additionalProperties": _NUMBER_OR_TEXT,
        },
        {"type": "null"},
    ]
}
_WORDS = {
    "anyOf": [
        {"type": "array", "items": {"anyOf": [_NUMBER_OR_TEXT, {"type": "array", "items": _NUMBER_OR_TEXT}]}},
        {"type": "string"},
    ]
}
_MORE_THAN_0: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0}
_AMOUNTS = {
    "anyOf": [
        _MORE_THAN_0,
        {"type": "object", "propertyNames": {"pattern": "^[0-9]+$"}, "additionalProperties": _MORE_THAN_0},
        {"type": "null"},
    ]
}
_ENGINES = {"type": "string", "enum": [*KINDS, *SYNONYMS]}

Text = Annotated[StrictStr, StringConstraints(min_length=1, pattern=PLAIN_TEXT)]
Words = Annotated[tuple[str, ...], BeforeValidator(values.words), WithJsonSchema(_WORDS)]
Variables = Annotated[dict[str, str], BeforeValidator(values.variables), WithJsonSchema(_VARIABLES)]
GlobalVariables = Annotated[
    dict[str, str], BeforeValidator(values.global_variables), WithJsonSchema({"type": ["object", "null"]})
]
Labels = Annotated[dict[str, str], BeforeValidator(values.labels), WithJsonSchema(_TEXTS)]
EngineKind = Annotated[str, BeforeValidator(values.engine), WithJsonSchema(_ENGINES)]
VariableName = Annotated[StrictStr, AfterValidator(values.variable_name)]
Host = Annotated[Text, AfterValidator(values.host)]
Balancing = Literal["least_in_flight", "round_robin", "random", "power_of_two", "session", "prefix"]
Url = Annotated[Text, AfterValidator(values.url)]
StateUrl = Annotated[Text, AfterValidator(values.state_url)]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Gpu = Annotated[StrictInt, Field(ge=0)]
GpuKey = Annotated[int, BeforeValidator(values.gpu_number)]
Amounts = Annotated[dict[int, float], BeforeValidator(values.amounts), WithJsonSchema(_AMOUNTS)]
Start = Literal["awake", "asleep", "stopped"]
Names = Annotated[tuple[Text, ...], BeforeValidator(values.as_tuple)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TimeoutSection(Section):
    """How long an engine may take, in seconds.

    An instance may have one too: what it sets there overrides the router's.
    """

    connect: Positive = 5
    """Until a connection to the engine is there."""
    first_byte: Positive = 600
    """Until the first byte of the answer's body. Bears a long prefill in a full queue."""
    idle: Positive = 300
    """Between two pieces of an answer."""
    total: Positive | None = None
    """For the whole answer. By default there is no limit."""


class GpuSection(Section):
    """One GPU of this machine."""

    memory_gib: Positive
    """What engines may take of it, in GiB."""


class HostSection(Section):
    """This machine's own memory, which engines fill that sleep at level 1."""

    memory_gib: Positive
    """What sleeping engines may take of it, in GiB."""


class GroupSection(Section):
    """Models that belong together, for those who prefer that to numbers."""

    members: Annotated[tuple[Text, ...], BeforeValidator(values.as_tuple), Field(min_length=1)]
    """The models."""
    exclusive: StrictBool = False
    """Whether one of them at most may be awake."""


class ResidencySection(Section):
    """Who may be in GPU memory, when not all models fit. Times in seconds."""

    max_wait_seconds: Seconds = 15
    """How long a model waits for busy ones, in seconds, before the one that costs least to move is drained for it."""
    min_awake_seconds: Seconds = 10
    """How long a model stays awake at least, in seconds, before it may have to leave for another."""


class RouterSection(Section):
    """The one OpenAI address."""

    enable_router: StrictBool = False
    """Whether the launcher starts the router too, in the session <session_prefix>frontend."""
    router_host: Host = "127.0.0.1"
    """The address the router listens on; 0.0.0.0 for all of this machine's."""
    router_port: Port = 8080
    """The port the router listens on."""
    api_key_env: VariableName | None = None
    """Name of the environment variable that holds the clients' key. When set, every route but /health needs it."""
    max_body_mb: Positive = 64
    """Largest request body in MB (1,000,000 bytes). A larger one is answered with 413."""
    max_buffered_mb: Positive = 1024
    """How much of request bodies is held at a time, of all requests together, in MB. Beyond it they get 503."""
    keepalive_after_seconds: Positive | None = None
    """From so many seconds of waiting on, a stream whose model is not ready gets comments. By default it gets none."""
    stop_timeout_seconds: Seconds = 25
    """How long running requests may take when the router is told to stop, in seconds, before they are cut off."""
    timeouts: Annotated[TimeoutSection, BeforeValidator(values.none_is_empty)] = TimeoutSection()
    """How long an engine may take."""


class ModelSection(Section):
    """How requests for one model are spread over its replicas, how many may be there, and what it is worth to stay."""

    balancing: Balancing = "least_in_flight"
    """least_in_flight, round_robin, random, power_of_two, session or prefix."""
    session_header: Annotated[Text, AfterValidator(str.lower)] = "x-session-id"
    """The header that names a session, for balancing: session."""
    session_field: Text | None = None
    """The field of the body that names a session when the header does not, such as user."""
    max_in_flight: Annotated[StrictInt, Field(ge=1)] | None = None
    """Requests of this model at once, over all its replicas. More wait their turn. By default there is no limit."""
    max_queued: Annotated[StrictInt, Field(ge=0)] = 512
    """Requests that may wait their turn. One more is answered with 429."""
    queue_timeout_seconds: Positive = 120
    """How long a request waits for its turn, in seconds from its arrival, before it is answered with 503."""
    priority_header: Annotated[Text, AfterValidator(str.lower)] | None = None
    """The header in which a request may say how urgent it is: a whole number, lower goes first; else 0."""

    pinned: StrictBool = False
    """Whether it stays awake when others need room. Idleness still puts it to sleep."""
    priority: Annotated[StrictInt, Field(ge=-20, le=20)] = 0
    """What it is worth to stay awake when others need room: each step doubles it."""


class SleepSection(Section):
    """When idle models sleep and how they wake. Times in seconds.

    An instance may have one too: what it sets there overrides the global section.
    """

    idle_threshold_seconds: Seconds = 300
    """How long a model must be idle before it may be put to sleep, in seconds."""
    check_interval_seconds: Positive = 60
    """How often idle models are looked for, in seconds."""
    auto_sleep_enabled: StrictBool = False
    """Whether idle models are put to sleep. By hand they can be in any case."""
    wakeup_on_request: StrictBool = True
    """Whether a request wakes a sleeping model. If not, it is answered with 503."""
    min_sleep_duration: Seconds = 60
    """How long a model sleeps at least, in seconds. A request that comes earlier waits for the rest of it."""
    wake_timeout_seconds: Positive = 300
    """How long a request waits at most for a sleeping model, in seconds from its arrival."""
    drain_timeout_seconds: Seconds = 30
    """How long a sleep waits for running requests, in seconds, before it is given up."""
    level: Annotated[StrictInt, Field(ge=1, le=2)] = 1
    """1: the weights wait in host memory and the wake is fast. 2: they are dropped and read again."""
    level2_after_seconds: Seconds | None = None
    """Asleep at level 1 for so long, it drops its weights too. By default it never does."""
    stop_after_seconds: Seconds | None = None
    """Asleep for so long, its process is ended; a request starts it again. By default it never is."""


class LaunchSection(Section):
    """How engines are started and stopped. Times in seconds."""

    session_prefix: Annotated[StrictStr, StringConstraints(pattern=SESSION_PREFIX)] = "kvcached-"
    """What the names of the tmux sessions begin with. Letters, digits, - and _."""
    ready_timeout_seconds: Positive = 1800
    """How long an engine may take until it is ready, in seconds."""
    stop_timeout_seconds: Seconds = 30
    """How long an engine may take to end when told to, in seconds, before it is killed."""
    restart: StrictBool = True
    """Whether the router starts engines again that have crashed, and replaces those that hang."""
    log_dir: Text | None = None
    """Folder of the log files. By default <name of this file>.logs beside this file."""


class AdapterSection(AdapterSpec):
    """One LoRA adapter: what it was made for, where it is, on how many instances it is to be loaded."""

    name: AdapterName
    """What clients write in `model`. Letters, digits, dots, dashes and underscores; no dot at its start."""


class AdapterStoreSection(Section):
    """Where adapters are kept, and what they are fetched with."""

    folder: Text | None = None
    """Folder for adapters that are fetched. By default <name of this file>.adapters beside this file."""
    credentials_file: Text | None = None
    """JSON file of named credentials, readable by its owner only. By default <name of this file>.credentials.json."""
    refresh_seconds: Positive | None = None
    """How often sources are looked at for something new. By default only when an adapter is applied again."""


class StateSection(Section):
    """Where what must survive a restart is kept."""

    url: StateUrl | None = None
    """Address of the database. By default sqlite:///<name of this file>.state.db beside this file."""


class InstanceSection(Section):
    """One engine process. Several instances of one model are its replicas."""

    model: Text
    """What clients write in `model`: a Hugging Face id or a path. The engine is started with it."""
    engine: EngineKind | None = None
    """The kind of server. Needed unless command or url is given, then openai."""
    name: Text | None = None
    """The name of this instance, and of its session. By default the last part of model."""
    host: Host | None = None
    """The address the engine listens on. By default --host of engine_args, else 127.0.0.1."""
    port: Port | None = None
    """The port the engine listens on. By default --port of engine_args, else one from 20000 made from the name."""
    url: Url | None = None
    """Address of an engine that runs already, without path: routed to, never launched."""
    command: Words = ()
    """The command to start, in place of the engine's own. {host}, {port}, {model} and {name} are filled in."""
    engine_args: Words = ()
    """Arguments for the engine. A list, each item split as a shell would, or one line of text."""
    args: Words = ()
    """Another name for engine_args."""
    using_venv: StrictBool = False
    """Whether the engine runs in the virtual environment at venv_path."""
    venv_path: Text | None = None
    """The virtual environment, relative to this file."""
    kvcached_env: Variables = {}
    """Environment variables that win over all others. A list of KEY=VALUE or a mapping."""
    engine_env: Variables = {}
    """Environment variables that win over the section kvcached. A list of KEY=VALUE or a mapping."""
    env: Variables = {}
    """Environment variables, as engine_env; of a variable in both, env wins."""
    gpus: Annotated[tuple[Gpu, ...], BeforeValidator(values.as_tuple)] = ()
    """Numbers of the GPUs this engine may see, as nvidia-smi shows them. Sets CUDA_VISIBLE_DEVICES and its order."""
    memory_gib: Amounts | None = None
    """What it takes awake, in GiB, over all its GPUs in equal parts; or a mapping from GPU to GiB. Else measured."""
    asleep_memory_gib: Amounts | None = None
    """What of that it keeps asleep. By default 2 GiB on each GPU, and never more than awake."""
    host_memory_gib: Seconds | None = None
    """What it takes of the host's memory asleep at level 1, in GiB. By default as much as awake on its GPUs."""
    start: Start = "awake"
    """awake, asleep: started, and put to sleep before the next one; stopped: started by its first request."""
    aliases: Names = ()
    """More names that clients may write in `model`."""
    labels: Labels = {}
    """Free notes, shown as they are. Adapters choose instances by them."""
    api_key_env: VariableName | None = None
    """Name of the environment variable that holds the engine's own key. It is sent to this engine only."""
    weight: Positive = 1
    """Its share of the model's requests, relative to the other replicas."""
    timeouts: Annotated[TimeoutSection, BeforeValidator(values.none_is_empty)] = TimeoutSection()
    """How long this engine may take; what is not set here is as in the router's section."""
    sidecar: StrictBool = False
    """Whether a sidecar is started beside the engine, in the session <session_prefix><name>-runtime."""
    sidecar_port: Port | None = None
    """The port the sidecar listens on, on loopback. By default one from 20000 made from the name."""
    sleep_flags: StrictBool = True
    """Whether the flags and variables an engine needs for sleeping are added to its command."""
    sleep_manager: Annotated[SleepSection, BeforeValidator(values.none_is_empty)] = SleepSection()
    """Sleep settings of this instance; what is not set here is as in the global section."""


class ConfigFile(Section):
    """Configuration of Torpor, for the launcher and the router."""

    kvcached: GlobalVariables = {}
    """Environment of every engine: names become upper case, values text. kvcached's own settings, or any other."""
    router: Annotated[RouterSection, BeforeValidator(values.none_is_empty)] = RouterSection()
    """The one OpenAI address: where it listens and who may use it."""
    sleep_manager: Annotated[SleepSection, BeforeValidator(values.none_is_empty)] = SleepSection()
    """When idle models sleep and how they wake."""
    gpus: Annotated[dict[GpuKey, GpuSection], BeforeValidator(values.none_is_empty)] = {}
    """The GPUs by number, and how much memory each has for engines. By default what the driver says, if it is there."""
    host: HostSection | None = None
    """How much memory the machine has for sleeping engines. By default there is no limit."""
    groups: Annotated[dict[Text, GroupSection], BeforeValidator(values.none_is_empty)] = {}
    """Groups of models, by any name."""
    residency: Annotated[ResidencySection, BeforeValidator(values.none_is_empty)] = ResidencySection()
    """Who may be in GPU memory, when not all models fit."""
    launch: Annotated[LaunchSection, BeforeValidator(values.none_is_empty)] = LaunchSection()
    """How engines are started and stopped."""
    models: Annotated[dict[Text, ModelSection], BeforeValidator(values.none_is_empty)] = {}
    """Settings of models, by the name their instances have under `model`."""
    state: Annotated[StateSection, BeforeValidator(values.none_is_empty)] = StateSection()
    """Where what must survive a restart is kept: who sleeps, what was launched."""
    adapters: Annotated[tuple[AdapterSection, ...], BeforeValidator(values.as_tuple)] = ()
    """LoRA adapters that are to be loaded. More can be added while the router runs."""
    adapter_store: Annotated[AdapterStoreSection, BeforeValidator(values.none_is_empty)] = AdapterStoreSection()
    """Where fetched adapters are kept, and the credentials to fetch them with."""
    launch_delay_seconds: Seconds = 0
    """A pause between two engine starts, in seconds."""
    instances: Annotated[
        tuple[InstanceSection, ...],
        BeforeValidator(values.as_tuple),
        Field(min_length=1, json_schema_extra={"minItems": 1}),
    ]
    """The engines."""
