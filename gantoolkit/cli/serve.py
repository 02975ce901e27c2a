"""`gantoolkit serve`."""

from typing import Annotated

from cyclopts import Parameter, validators

from gantoolkit.cli.exit_codes import SUCCESS
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
    """Serve a page for trying trained generators, until Ctrl-C: an image, its translation, and its reconstruction.

    Programs can use the same HTTP API, which /api/openapi.json describes. Images are kept in memory while they are
    translated, and nowhere else. The page can be reached from this machine only, unless --host says otherwise; then a token
    is required.

    Parameters
    ----------
    models
        Run folders and generator files. NAME=PATH sets the name of a model.
    host
        Address to bind to.
    port
        Port to bind to.
    names
        A host name by which others reach the server. May be repeated. Required with --host 0.0.0.0.
    token
        Token that visitors must send. By default, one is generated if other machines can reach the server.
    max_megabytes
        Largest image file, in megabytes.
    max_pixels
        Largest image, in pixels.
    queue
        Number of images that may wait. Further requests are answered with the time after which to retry.
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
        models_by_name = open_models(models, device=device)
        for name, model in models_by_name.items():
            print(f"{name}: {', '.join(model.translators)}", flush=True)
        print(address_of(host, port, names or [], token), flush=True)
        run_server(models_by_name, listening, hosts=hosts, token=token, limits=limits, places=queue)
    return SUCCESS
