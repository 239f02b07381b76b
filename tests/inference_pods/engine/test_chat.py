"""The chat template: what it makes of messages, and how it refuses them."""

import pytest

from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.errors import LoadError, LoadReason, TemplateError

SECRET = [{"role": "user", "content": "xylophone"}]


def test_messages_become_the_prompt():
    template = ChatTemplate(
        "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{% endfor %}", "<s>", ""
    )
    assert template.render(SECRET) == "<s>user: xylophone"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.missing.field }}", "refused"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content | int('x') + [] }}", "TypeError"),
        ("{{ messages[0].content.index('z') }}", "ValueError"),
        ("{% for i in range(10**9) %}{% endfor %}", "OverflowError"),
    ],
)
def test_whatever_goes_wrong_in_a_template_is_a_refusal_of_the_messages(source, words):
    with pytest.raises(TemplateError, match=r"^messages: ") as caught:
        ChatTemplate(source, "", "").render(SECRET)
    assert words in caught.value.message
    assert "xylophone" not in caught.value.message


def test_a_chat_template_that_is_no_template_is_corrupt():
    with pytest.raises(LoadError, match="chat template") as caught:
        ChatTemplate("{% for message in %}", "", "")
    assert caught.value.reason is LoadReason.CORRUPT
