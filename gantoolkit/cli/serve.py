"""`gantoolkit serve`."""

from typing import Annotated

from cyclopts import Parameter, validators

from gantoolkit.errors import DataError, requires_extra

__all__ = ["serve"]

_Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]


def serve(
    *models: str,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))] = 8766,
    names: Annotated[list[str] | None, Parameter(name="--name", negative=())] = None,
    token: str | None = None,
    max_megabytes: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000))] = 16,
    max_pixels: _Positive = 4096 * 4096,
    queue: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=200))] = 16,
    device: str = "auto",
) -> int:
    """Open a page on which trained generators are tried, until Ctrl-C: an image, its translation, and the way back.

    Programs ask for the same over HTTP; /api/openapi.json describes it. Images are in memory while they are translated, and
    nowhere else. The page can be reached from this machine alone unless --host says otherwise; then it asks for a token.

    Parameters
    ----------
    models
        Runs' folders and generators' files, side by side; NAME=PATH gives one another name than the path's.
    host
        Address to bind to.
    port
        Port to bind to.
    names
        A host name under which others reach it, as often as you like; needed with --host 0.0.0.0.
    token
        What visitors have to bring; made up where others than this machine can reach it.
    max_megabytes
        The most that an image file may have.
    max_pixels
        The most that an image may have.
    queue
        Images that may wait; further ones are told when to come again.
    device
        cpu, cuda, cuda:1, or auto.
    """
    if not models:
        raise DataError("serve needs runs' folders or generators' files: gantoolkit serve RUN-OR-FILE...")
    with requires_extra("serve", "gantoolkit serve", DataError):
        from gantoolkit.serving.description import Limits
        from gantoolkit.serving.server import run_server
        from gantoolkit.web.listening import address_of, choose_token, listen, names_of
    from gantoolkit.serving import open_models

    hosts = names_of(host, names or [])
    token = choose_token(host, token)
    limits = Limits(bytes=1_000_000 * max_megabytes, pixels=max_pixels)
    with listen(host, port) as listening:
        opened = open_models(models, device=device)
        for name, model in opened.items():
            print(f"{name}: {', '.join(model.translators)}", flush=True)
        print(address_of(host, port, names or [], token), flush=True)
        run_server(opened, listening, hosts=hosts, token=token, limits=limits, places=queue)
    return 0
