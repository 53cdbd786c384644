"""OpenVINO's plugin, where this machine has it."""

import importlib.util

import pytest

from n2n_deploy.core.errors import HostError
from n2n_deploy.engines.openvino.library import plugin_version


@pytest.fixture
def plugin() -> str:
    """The version of the plugin, where this machine has it and it supports the processor."""
    try:
        return plugin_version()
    except HostError as error:
        if importlib.util.find_spec("onnxruntime_ep_openvino") and "does not support this processor" not in str(error):
            raise
        pytest.skip(str(error))
