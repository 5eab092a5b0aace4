"""What an LLM is told around the audio: prompts, languages, context and chat templates, as token ids. Needs no torch."""

from typing import Any

__all__ = ["AUDIO_MARK", "LANGUAGE_NAMES", "PromptMixin"]

LANGUAGE_NAMES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fi": "Finnish", "fo": "Faroese", "fr": "French", "hi": "Hindi", "hu": "Hungarian",
    "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "nb": "Norwegian", "nl": "Dutch", "nn": "Norwegian", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip
AUDIO_MARK = "<|slam_asr_audio|>"


class PromptMixin:
    """
    For what has a `tokenizer` and a processor's settings of the prompt.

    The attributes are those of [`SlamAsrProcessor`].
    """

    tokenizer: Any
    chat_template: Any
    prompt: str
    language_prompt: str | None
    context_prompt: str
    use_chat_template: bool

    def around_audio(
        self, prompt: str | None = None, language: str | None = None, context: str | None = None
    ) -> tuple[list[int], list[int]]:
        """Token ids before and after the audio embeddings."""
        before, after = self._around_audio(self.prompt_text(prompt, language, context))
        return self._encode_start(before), self._encode(after)

    def prompt_text(self, prompt: str | None = None, language: str | None = None, context: str | None = None) -> str:
        """The text after the audio, before a chat template is put around it."""
        if prompt is None:
            prompt = self.prompt
            if language is not None and self.language_prompt is not None:
                prompt = self.language_prompt.format(language=LANGUAGE_NAMES.get(language.lower(), language))
        return self.context_prompt.format(context=context) + prompt if context else prompt

    def _around_audio(self, prompt: str) -> tuple[str, str]:
        """The texts before and after the audio."""
        if not self.use_chat_template:
            return "", prompt
        template = self.chat_template or self.tokenizer.chat_template
        if template is None:
            raise ValueError(
                "use_chat_template=True, but the tokenizer has no chat template. Use the bare prompt or set one."
            )
        message = [{"role": "user", "content": AUDIO_MARK + prompt}]
        rendered = self.tokenizer.apply_chat_template(
            message, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        before, _, after = rendered.partition(AUDIO_MARK)
        return before, after

    def _encode_start(self, before: str) -> list[int]:
        """What stands before the audio; a bare prompt has nothing there but the token that the tokenizer itself begins with."""
        if self.use_chat_template:
            return self._encode(before)
        return list(self.tokenizer("").input_ids[:1]) if self._writes_bos() else []

    def _writes_bos(self) -> bool:
        start = self.tokenizer("").input_ids
        return bool(start) and start[0] == self.tokenizer.bos_token_id and start[0] is not None

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)
