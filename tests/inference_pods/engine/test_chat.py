import pytest

from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.errors import LoadError, LoadReason


def test_a_chat_template_that_is_no_template_is_corrupt():
    with pytest.raises(LoadError, match="chat template") as caught:
        ChatTemplate("{% for message in %}", "", "")
    assert caught.value.reason is LoadReason.CORRUPT
