"""The NeMo models, imported when they are asked for (NeMo's own import takes many seconds)."""

from importlib import import_module

_HOMES = {"DuplexModel": "duplex_model", "VoiceCodecModel": "voice_codec"}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
