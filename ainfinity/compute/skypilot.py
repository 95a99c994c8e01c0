"""The only place that talks to SkyPilot: plain values in and out, every call limited in time, errors in our words.

`sky` is imported by the first call that needs it, which costs seconds. An API server is never started by accident: the
SDK would start one on this machine whenever none answers, and here it cannot.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.compute.remote import sky_rows
from ainfinity.compute.remote.faults import translate, translate_outcome
from ainfinity.compute.remote.health import ask_health, find_endpoint, start_local
from ainfinity.compute.remote.limits import Limits, limited_adapter
from ainfinity.compute.remote.rows import (
    ClusterRow,
    FreeRow,
    GivenRow,
    Gone,
    GpuRow,
    Health,
    ManagedRow,
    PricedRow,
    QueueRow,
    RequestLost,
    RequestRow,
    SkyRefused,
)
from ainfinity.core.exceptions import ComputeUnreachable, MissingTool

#: Seconds that a question may take in all, and a change. A server that takes 30 s for each answer still gets through.
LOOK: Final = 100.0
CHANGE: Final = 300.0
#: The longest that a stream may be silent: the server sends a sign of life each 30 s.
SILENCE: Final = 95.0
#: How long uploading a task's files may take.
UPLOAD: Final = 3600.0
#: What cannot hold the controller of managed jobs.
_NO_CONTROLLER: Final = frozenset({"slurm", "ssh"})


class SkyPilot:
    """SkyPilot's API server, the user's own or the one on this machine."""

    def __init__(self) -> None:
        self._sky: _Sdk | None = None
        self._loading = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Where the API server is, as SkyPilot itself finds it."""
        return find_endpoint()

    def health(self, limit: float = 10.0) -> Health:
        """Ask the API server how it is, without loading SkyPilot."""
        return ask_health(find_endpoint(), limit)

    def start_local(self, limit: float = 90.0) -> Health:
        """Start the API server of this machine. Only for when a person said so.

        Errors:
            SkyRefused: the endpoint set is another one. ComputeUnreachable: it did not come up.
        """
        return start_local(limit)

    # Looking.

    def clusters(self, names: Sequence[str] | None = None, *, refresh: bool = False) -> list[ClusterRow]:
        """Return these clusters, or all but those of managed jobs; `refresh` asks the clouds about their machines."""
        with self._call(LOOK, changes=False) as sky:
            mode = sky.refresh.FORCE if refresh else sky.refresh.NONE
            wanted = None if names is None else list(names)
            request = sky.sdk.status(wanted, refresh=mode, all_users=True, _summary_response=True)
            return [sky_rows.cluster(record) for record in sky.sdk.get(request)]

    def managed_jobs(self, *, ids: Sequence[int] | None = None, name: str = "", live: bool = False) -> list[ManagedRow]:
        """Return these managed jobs, those whose name holds `name`, or all; `live`: of those the ones not over."""
        with self._call(LOOK, changes=False) as sky:
            wanted = None if ids is None else list(ids)
            request = sky.jobs.queue_v2(
                refresh=False,
                skip_finished=live,
                all_users=True,
                job_ids=wanted,
                name_match=name or None,
                fields=sky_rows.MANAGED_FIELDS,
            )
            try:
                records = sky.sdk.get(request)[0]
            except Exception as error:
                if isinstance(translate(error), Gone):  # no controller: then there are no jobs either
                    return []
                raise
            return sky_rows.managed(records, sky.cluster_of_managed)

    def queue(self, cluster: str) -> list[QueueRow]:
        """Return the jobs of a cluster, oldest first. Errors: Gone."""
        with self._call(LOOK, changes=False) as sky:
            rows = [sky_rows.queued(record) for record in sky.sdk.get(sky.sdk.queue(cluster, all_users=True))]
        return sorted(rows, key=lambda row: row.id)

    def requests(self, cluster: str = "") -> list[RequestRow]:
        """Return the requests that are not over; those about a cluster, over or not."""
        parameters: dict[str, Any] = {"all_status": bool(cluster), "fields": sky_rows.REQUEST_FIELDS}
        if cluster:
            parameters["cluster_name"] = cluster
        with self._call(LOOK, changes=False) as sky:
            response = sky.request("GET", "/api/status", params=parameters)
            sky.check(response)
            return [sky_rows.request(record) for record in response.json()]

    def given(self, clusters: Sequence[str]) -> Mapping[str, GivenRow]:
        """Return what was given for clusters that are there, those of managed jobs included.

        The server prices it: a client would have to load, and maybe download, the catalogs of clouds.
        """
        if not clusters:
            return {}
        with self._call(LOOK, changes=False) as sky:
            body = sky.payloads.CostReportBody(days=1, cluster_names=list(clusters))
            response = sky.request("POST", "/cost_report", json=json.loads(body.model_dump_json()))
            records = sky.sdk.get(sky.request_id(response))
        rows = (sky_rows.given(record) for record in records if record.get("status") is not None)
        return {row.cluster: row for row in rows}

    def launch(
        self, task: Mapping[str, Any], name: str, secrets: Mapping[str, str], idle_minutes: int | None = None
    ) -> str:
        """Send a task to a cluster that it makes if need be; return the request, which goes on.

        Errors:
            SkyRefused: SkyPilot does not accept the task. ComputeUnreachable: it may have been taken, or not.
        """
        with self._call(UPLOAD, each=CHANGE) as sky:
            down: Any = {"idle_minutes_to_autostop": idle_minutes, "down": True} if idle_minutes else {}
            return str(sky.sdk.launch(sky.task(task, secrets), cluster_name=name, **down))

    def launch_managed(self, task: Mapping[str, Any], name: str, secrets: Mapping[str, str]) -> str:
        """Send a task as a managed job; return the request, which goes on. Errors as of `launch`."""
        with self._call(UPLOAD, each=CHANGE) as sky:
            return str(sky.jobs.launch(sky.task(task, secrets), name=name, job_group=None))

    def result(self, request_id: str) -> int | None:
        """Return the number of the job that a launch which is over made.

        Errors:
            SkyRefused: why it failed. RequestLost: the server was restarted. ComputeUnreachable: it is not over.
        """
        with self._call(LOOK) as sky:
            try:
                job = (sky.sdk.get(request_id) or (None,))[0]
            except Exception as error:
                raise translate_outcome(error) from error
        if isinstance(job, (list, tuple)):
            job = next(iter(cast("Sequence[Any]", job)), None)
        return None if job is None else int(job)

    def cancel_request(self, request_id: str) -> None:
        """Have the server drop a request; what it began stays."""
        with self._call(LOOK, changes=False) as sky:
            sky.sdk.get(sky.sdk.api_cancel([request_id], silent=True))

    def down(self, cluster: str) -> None:
        """End a cluster and wait until it is gone. One that is not there is."""
        try:
            with self._call(CHANGE) as sky:
                sky.sdk.get(sky.sdk.down(cluster))
        except Gone:
            return

    def cancel_managed(self, job_id: int) -> None:
        """Have a managed job's controller end it; `is_done` tells when it has."""
        with self._call(LOOK) as sky:
            sky.sdk.get(sky.jobs.cancel(job_ids=[job_id]))

    def can_manage(self) -> bool:
        """Whether managed jobs can run: their controller is there or in the server, or a cloud could hold one."""
        with self._call(LOOK, changes=False) as sky:
            try:
                sky.sdk.get(sky.jobs.queue_v2(refresh=False, limit=1, fields=["job_id"]))
            except Exception as error:
                if not isinstance(translate(error), Gone):
                    raise
            else:
                return True
            enabled = sky.sdk.get(sky.sdk.enabled_clouds())
        return any(str(cloud).lower() not in _NO_CONTROLLER for cloud in enabled)

    # Streams: raw lines with their ends.

    def tail(self, cluster: str, job_id: int | None, *, follow: bool = True) -> Iterator[str]:
        """Read the log of a cluster's job from its beginning, to its end with `follow`. Errors: Gone, no answer."""
        return self._stream(
            "/logs",
            lambda sky: sky.payloads.ClusterJobBody(cluster_name=cluster, job_id=job_id, follow=follow),
        )

    def tail_managed(self, job_id: int, *, follow: bool = True) -> Iterator[str]:
        """Read the log of a managed job over its recoveries, to its end with `follow`. Errors: Gone, no answer."""
        return self._stream("/jobs/logs", lambda sky: sky.payloads.JobsLogsBody(job_id=job_id, follow=follow))

    def tail_provision(self, cluster: str) -> Iterator[str]:
        """Read what the making of a cluster has written so far, in all detail. Errors: Gone, ComputeUnreachable."""
        # Followed, it has no end.
        return self._stream(
            "/provision_logs", lambda sky: sky.payloads.ProvisionLogsBody(cluster_name=cluster), {"follow": "false"}
        )

    def tail_request(self, request_id: str) -> Iterator[str]:
        """Follow what a request writes, as provisioning and setup do. Errors: RequestLost, ComputeUnreachable."""
        return self._stream("/api/stream", None, {"request_id": request_id, "follow": True, "format": "console"})

    def _stream(
        self, path: str, body: Callable[[_Sdk], Any] | None, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        # The limit holds for the reading too: the connection keeps it.
        with self._call(None, each=SILENCE, changes=False) as sky:
            sky.check_health()
            content = None if body is None else json.loads(body(sky).model_dump_json())
            method = "GET" if content is None else "POST"
            response = sky.request(method, path, params=parameters, json=content, stream=True)
        with response:
            if response.status_code == 404:
                if body is None:
                    raise RequestLost("SkyPilot's API server no longer knows that request.")
                raise Gone("SkyPilot has no such log.")
            try:
                sky.check(response)
                yield from (line for line in sky.decode(response) if line is not None)
            except Exception as error:
                raise translate(error) from error
            request = response.headers.get("X-Skypilot-Request-ID", "")
        if body is not None and request:
            with self._call(LOOK, changes=False) as sky:
                sky.sdk.get(request)  # raises what went wrong, as a cluster that is gone

    # What fronts ask, through `compute.ask`.

    def ssh_config(self, cluster: str) -> str:
        """Return a configuration for OpenSSH with which the cluster's name is a host. Errors: Gone."""
        with self._call(LOOK, changes=False) as sky:
            sky.write_ssh_config(cluster)
        path = Path(f"~/.sky/generated/ssh/{cluster}").expanduser()
        try:
            text = path.read_text()
        except FileNotFoundError:
            raise Gone(f"{cluster} cannot be reached by ssh now.", hint="It must be up: see `sky status`.") from None
        # OpenSSH takes `~` for the home of the account, whatever $HOME says.
        return text.replace(" ~/", f" {Path.home()}/").replace('"~/', f'"{Path.home()}/')

    def infrastructures(self) -> list[str]:
        """Return where SkyPilot may launch, as `aws` or, of clusters of one's own, `slurm/NAME`."""
        with self._call(LOOK, changes=False) as sky:
            return [str(infra).lower() for infra in sky.sdk.get(sky.sdk.enabled_clouds(expand=True))]

    def accelerators(self, clouds: Sequence[str], name: str = "", *, region: str = "") -> list[GpuRow]:
        """Return what accelerators those clouds offer, or one region or own cluster, at what price.

        Only named clouds: the others' lists are large.
        """
        if not clouds:
            return []
        with self._call(LOOK, changes=False) as sky:
            request = sky.sdk.list_accelerators(
                name_filter=name or None,
                region_filter=region or None,
                clouds=list(clouds),
                require_price=False,
                case_sensitive=False,
            )
            return [sky_rows.gpu(one) for offers in sky.sdk.get(request).values() for one in offers]

    def candidates(self, task: Mapping[str, Any]) -> list[PricedRow]:
        """Return where a task could run, as SkyPilot's optimizer orders it: the first is what it would take.

        Errors:
            SkyRefused: nowhere, or it is no task.
        """
        with self._call(LOOK) as sky:
            request = sky.sdk.optimize(sky.dag(sky.task(task, {})))
            sky.sdk.get(request)
            # The answer itself is empty: what the optimizer found is in what the request wrote.
            said = sky.request("GET", "/api/stream", params={"request_id": request, "follow": False})
            sky.check(said)
            return sky_rows.candidates(said.text)

    def free_gpus(self, clouds: Sequence[str], name: str = "") -> list[FreeRow]:
        """Return what is there and free now on Slurm and Kubernetes, as far as those are among `clouds`."""
        wanted = {cloud.lower() for cloud in clouds}
        rows: list[FreeRow] = []
        with self._call(LOOK, changes=False) as sky:
            if "slurm" in wanted:
                found = sky.sdk.get(sky.sdk.realtime_slurm_gpu_availability(name_filter=name or None))
                rows += sky_rows.free("slurm", found)
            if "kubernetes" in wanted:
                found = sky.sdk.get(sky.sdk.realtime_kubernetes_gpu_availability(name_filter=name or None))
                rows += sky_rows.free("k8s", found)
        return rows

    @contextmanager
    def _call(self, limit: float | None, each: float | None = None, *, changes: bool = True) -> Generator[_Sdk]:
        """Have SkyPilot do something within `limit` seconds in all and `each` a request.

        A refusal of what changes nothing says nothing of a job, so it counts as no answer.
        """
        sky = self._load()
        try:
            with sky.limits.set(limit, each):
                yield sky
        except Exception as error:
            ours = translate(error)
            if isinstance(ours, SkyRefused) and not changes:
                ours = ComputeUnreachable(ours.message, hint=ours.hint)
            if ours is error:
                raise
            raise ours from error

    def _load(self) -> _Sdk:
        with self._loading:
            if self._sky is None:
                self._sky = _Sdk()
            return self._sky


class _Sdk:
    """SkyPilot's modules, once they are loaded, with limits put to them. Their types are not ours: all is `Any`."""

    def __init__(self) -> None:
        os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
        try:
            sky: Any = importlib.import_module("sky")
            self._server: Any = importlib.import_module("sky.server.common")
        except ImportError as error:
            raise MissingTool(
                f"SkyPilot is not installed: {error}.", hint='Run `pip install "ainfinity[sky]"`.'
            ) from None
        rest: Any = importlib.import_module("sky.server.rest")
        self.sdk: Any = importlib.import_module("sky.client.sdk")
        self.jobs: Any = importlib.import_module("sky.jobs.client.sdk")
        self.payloads: Any = importlib.import_module("sky.server.requests.payloads")
        self.refresh: Any = sky.StatusRefreshMode
        self.cluster_of_managed: Any = importlib.import_module("sky.jobs.utils").generate_managed_job_cluster_name
        self._task: Any = sky.Task
        self._dag: Any = sky.Dag
        self._decode: Any = importlib.import_module("sky.utils.rich_utils").decode_rich_status
        self.limits = Limits()
        for scheme in ("http://", "https://"):
            rest._session.mount(scheme, limited_adapter(self.limits))
        # Whatever comes to it, a server of its own is not the answer.
        self._server._start_api_server = _refuse_to_start

    def task(self, config: Mapping[str, Any], secrets: Mapping[str, str]) -> Any:
        """Return a task, its secrets with their values."""
        names = dict(config.get("secrets") or {})
        values = [(name, secrets[name]) for name in names if name in secrets]
        return self._task.from_yaml_config(copy.deepcopy(dict(config)), secrets_overrides=values)

    def dag(self, task: Any) -> Any:
        """Return a pipeline of this task alone."""
        with self._dag() as dag:
            dag.add(task)
        return dag

    def check_health(self) -> None:
        """Raise if the server cannot be used; also tells this thread its version."""
        self._server.check_server_healthy()

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """Make a request of the API server's own protocol and return the response."""
        return self._server.make_authenticated_request(method, path, **arguments)

    def check(self, response: Any) -> None:
        """Raise if a response says that it did not work."""
        self._server.handle_request_error(response)

    def request_id(self, response: Any) -> Any:
        """Return the id of the request that a response tells of."""
        return self._server.get_request_id(response)

    def decode(self, response: Any) -> Iterator[str | None]:
        """Return the lines of a stream; None for the server's signs of life."""
        return self._decode(response, relay_rich_status=False)

    def write_ssh_config(self, cluster: str) -> None:
        """Have SkyPilot's command line write its file about a cluster."""
        cli: Any = importlib.import_module("sky.client.cli.command")
        cli._get_cluster_records_and_set_ssh_config([cluster])


def _refuse_to_start(*arguments: Any, **named: Any) -> None:
    raise ComputeUnreachable("SkyPilot's API server does not answer.", hint="Start it with `ainfinity sky start`.")
