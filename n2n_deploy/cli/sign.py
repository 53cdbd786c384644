"""`n2n-deploy keygen` and `sign`: make a key pair, and sign bundles with it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from n2n_deploy.cli.common import ConfigOption, JsonOption, out, print_json


def keygen_command(
    key: Annotated[Path, typer.Argument(help="File for the private key; the public key is written to KEY.pub.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an Ed25519 key pair for signing bundles.

    Keep KEY where models are exported; only its owner can read it. Copy KEY.pub to the nodes, and name the file or its
    folder there with --trusted-keys or $N2N_DEPLOY_TRUSTED_KEYS.
    """
    del config
    from n2n_deploy.bundle.trust import fingerprint, generate_key, load_trusted

    public = generate_key(key)
    (loaded,) = load_trusted(public)
    if as_json:
        print_json({"private": str(key), "public": str(public), "fingerprint": fingerprint(loaded)})
        return
    out.print(f"{escape(str(key))} (private) and {escape(str(public))}: key {fingerprint(loaded)}", soft_wrap=True)


def sign_command(
    model: Annotated[Path, typer.Argument(help="The bundle (MODEL.n2n) to sign in place.")],
    key: Annotated[Path, typer.Option("--key", help="Private key from n2n-deploy keygen.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle, so that nodes can verify who made it and that nobody altered it since.

    Every member is checked first. Sign last: compiling drops the signature.
    """
    del config
    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.bundle.trust import check_trusted, sign_bundle

    signed = sign_bundle(Bundle.open(model), key)
    public = key.with_name(key.name + ".pub")
    name = check_trusted(signed, public) if public.is_file() else None
    if as_json:
        print_json({"bundle": str(model), "short_hash": signed.short_hash, "key": name})
        return
    out.print(
        f"{escape(str(model))} is signed with {escape(str(key))}" + (f", key {name}" if name else ""), soft_wrap=True
    )
