"""Models as they are kept and passed on.

`load_model` restores one from the folder of a run, from a bundle, or by the name of a shipped one, which
`shipped_facts` and `best_for` tell of; `with_tumors` joins two to a cascade; `write_bundle` writes a bundle, with a
card of `read_card`, `write_cascade` one of a cascade; `describe` and `read_facts` say what is in one; `export_model`
writes the networks for other programs; `with_onnx_runtime` lets ONNX Runtime compute them.
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "load": ("load_model", "with_tumors"),
        "cascade_bundle": ("write_cascade",),
        "bundle": ("describe", "read_facts", "read_scores", "write_bundle"),
        "card": ("read_card",),
        "registry": ("best_for", "shipped_facts"),
        "export": ("export_model",),
        "onnx": ("with_onnx_runtime",),
    },
)
