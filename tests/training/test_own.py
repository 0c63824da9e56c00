"""A loss and an augmentation of one's own: that they take part, what is told of faults, that changes are noticed."""

import dataclasses
import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liverjax
from liverjax.commands.dispatch import main
from liverjax.config import override, to_dict
from liverjax.data.augment import augment
from liverjax.data.preview import augmented_slices
from liverjax.data.store import open_store
from liverjax.errors import CheckpointError, ConfigError
from liverjax.experiments.plan import _training_fields
from liverjax.options import Augment, Config, Loss, Target
from liverjax.own import own_functions
from liverjax.pretrained import read_facts, write_bundle
from liverjax.training.loop import train
from liverjax.training.losses import cross_entropy_loss, segmentation_loss
from liverjax.training.own import require_sound

HEAD = "import jax\nimport jax.numpy as jnp\n\n\n"
#: Cross-entropy as the library has it, by one's own hand.
ENTROPY = """def loss(logits, labels, weights):
    given = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
    return -(weights * given).sum() / jnp.maximum(weights.sum(), 1)
"""
#: Mirrors the rows of every slice, and whatever maps go with it.
MIRROR = """def mirror(key, image, *maps):
    return image[::-1], *(each[::-1] for each in maps)
"""


@pytest.fixture
def one_view(tiny_config):
    options = dataclasses.replace(tiny_config.train, steps=2)
    return dataclasses.replace(tiny_config, views=("axial",), train=options)


@pytest.fixture
def own(tmp_path):
    """Function from text to the path of a file with it, `my.py`."""

    def write(text):
        (tmp_path / "my.py").write_text(HEAD + text, encoding="utf-8")
        return tmp_path / "my.py"

    return write


def _with(config, **values):
    return override(config, [f"{name.replace('__', '.')}={value}" for name, value in values.items()])


def test_an_own_loss_is_a_term_of_the_objective(own):
    loss = own_functions(_with(Config(), loss__own=f"{own(ENTROPY)}:loss"))["loss.own"]
    noise = np.random.default_rng(0)
    logits = jnp.asarray(noise.normal(size=(2, 4, 5, 3)), jnp.float32)
    labels = jnp.asarray(noise.integers(0, 3, (2, 4, 5)), jnp.uint8)
    weights = jnp.asarray(noise.uniform(0, 2, (2, 4, 5)), jnp.float32)
    only = Loss(dice=0.0, cross_entropy=0.0, own="my.py:loss")
    for given in (None, weights):
        expected = cross_entropy_loss(logits, labels, given)
        found = segmentation_loss(logits, labels, only, given, loss)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        both = segmentation_loss(logits, labels, Loss(dice=0.0, cross_entropy=2.0), given, loss)
        np.testing.assert_allclose(both, 3 * expected, rtol=1e-6)


@pytest.fixture(scope="module")
def copied(tiny_config, tmp_path_factory):
    """Config and folder of a run whose only loss is an own copy of the cross-entropy."""
    folder = tmp_path_factory.mktemp("copied")
    (folder / "my.py").write_text(HEAD + ENTROPY, encoding="utf-8")
    options = dataclasses.replace(tiny_config.train, steps=2)
    loss = Loss(dice=0.0, cross_entropy=0.0, own=f"{folder / 'my.py'}:loss")
    config = dataclasses.replace(tiny_config, views=("axial",), train=options, loss=loss)
    train(config, folder / "run", quiet=True)
    return config, folder


def test_training_with_an_own_copy_of_a_loss_is_training_with_it(one_view, copied, tmp_path, final_state):
    plain = dataclasses.replace(one_view, loss=Loss(dice=0.0))
    train(plain, tmp_path / "plain", quiet=True)
    one, other = (final_state(plain, folder)[1] for folder in (tmp_path / "plain", copied[1] / "run"))
    for plain_array, own_array in zip(one, other, strict=True):
        np.testing.assert_allclose(plain_array, own_array, rtol=1e-3, atol=2e-5)


def test_an_own_augmentation_sees_each_slice_with_a_key_of_its_own(own):
    text = "def noise(key, image, labels):\n"
    text += (
        "    return image + 0.1 * jax.random.normal(key, image.shape), jnp.where(labels == 1, 2, labels)\n"
    )
    function = own_functions(_with(Config(), augment__own=f"{own(MIRROR + text)}:noise"))["augment.own"]
    off = Augment(**{f.name: 0.0 for f in dataclasses.fields(Augment) if f.name != "own"})
    images = jnp.zeros((3, 8, 6, 1)).at[:, 1].set(1.0)
    labels = jnp.zeros((3, 8, 6), jnp.uint8).at[:, :2].set(1)
    changed, moved = augment(jax.random.key(0), images, labels, off, function)
    rows = np.asarray(changed - jnp.clip(images, -1, 1))[..., 0]
    assert len({row.tobytes() for row in rows[:, 2:]}) == 3 and changed.max() == 1  # Clipped to the range.
    assert moved.dtype == jnp.uint8 and set(np.unique(moved)) == {0, 2}
    again, _ = augment(jax.random.key(0), images, labels, off, function)
    np.testing.assert_array_equal(changed, again)
    # Of boxes the weights of the pixels move along.
    mirror = own_functions(_with(Config(), augment__own=f"{own(MIRROR)}:mirror"))["augment.own"]
    maps = {"pixel_weight": labels.astype(jnp.float32), "label": labels}
    changed, moved = augment(jax.random.key(0), images, maps, off, mirror)
    np.testing.assert_array_equal(changed, images[:, ::-1])
    for name, given in maps.items():
        assert moved[name].dtype == given.dtype
        np.testing.assert_array_equal(moved[name], given[:, ::-1])


def test_what_the_library_draws_is_the_same_beside_an_own_augmentation(own):
    same = "def same(key, image, labels):\n    return image, labels\n"
    function = own_functions(_with(Config(), augment__own=f"{own(same)}:same"))["augment.own"]
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 1)), jnp.float32)
    labels = jnp.zeros((2, 16, 16), jnp.uint8)
    plain, with_own = (augment(jax.random.key(3), images, labels, Augment(), f)[0] for f in (None, function))
    np.testing.assert_array_equal(plain, with_own)


def test_the_preview_shows_it(one_view, own):
    config = _with(one_view, augment__own=f"{own(MIRROR)}:mirror")
    cases = open_store(config.store, config.preprocess, config.target).cases
    sheets = [augmented_slices(cases, "axial", each, rows=2, steps=1) for each in (one_view, config)]
    np.testing.assert_array_equal(sheets[1].images[:, 1], sheets[0].images[:, 1, ::-1])
    np.testing.assert_array_equal(sheets[1].labels[:, 1], sheets[0].labels[:, 1, ::-1])
    assert f"own {config.augment.own}".split("/")[-1] in sheets[1].title.replace("\n", "")


_SAMPLE = "def loss(logits, labels, weights):\n"
LOSS_FAULTS = {
    "no function": ("def los(logits):\n    return 0.0\n", r"my\.py: has no function 'loss'.*mean 'los'"),
    "syntax": ("def loss(:\n", r"my\.py:5: SyntaxError"),
    "import": ("import no_such_package\n", r"my\.py:5: ModuleNotFoundError: No module named 'no_such"),
    "arguments": (
        "def loss(logits, labels):\n    return 0.0\n",
        r"too many .*, expected a function of \(logits, labels, weights\)",
    ),
    "shape": (
        _SAMPLE + "    return logits.mean((1, 2, 3))\n",
        r"returns float32 of shape \(2,\), expected a scal",
    ),
    "type": (
        _SAMPLE + "    return labels.sum()\n",
        r"returns int32 of shape \(\), expected a scalar of a float",
    ),
    "nothing": (_SAMPLE + "    pass\n", r"returns a NoneType, expected a scalar"),
    "branch": (
        _SAMPLE + "    if labels.sum() > 0:\n        return logits.sum()\n    return 0.0\n",
        r"my\.py:6: TracerBoolConversionError: Attempted boolean conversion",
    ),
    "NumPy": (
        "import numpy\n" + _SAMPLE + "    return numpy.asarray(logits).sum()\n",
        r"my\.py:7: TracerArrayConversionError",
    ),
    "no foreground": (
        _SAMPLE + "    return (logits[..., 1] * (labels > 0)).sum() / (labels > 0).sum()\n",
        r"its loss is not finite for slices of background alone",
    ),
    "gradient": (
        _SAMPLE + "    return jnp.sqrt(0.0 * labels * logits[..., 0]).sum()\n",
        r"its gradient is not finite",
    ),
}


@pytest.mark.parametrize("fault", LOSS_FAULTS)
def test_what_is_wrong_with_a_loss_is_told_before_anything_is_written(fault, one_view, own, tmp_path):
    text, told = LOSS_FAULTS[fault]
    config = _with(one_view, loss__own=f"{own(text)}:loss")
    with pytest.raises(ConfigError, match=told) as caught:
        train(config, tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value) and str(tmp_path / "my.py") in str(caught.value)
    assert len(str(caught.value)) < 500 and not (tmp_path / "run").exists()


AUGMENT_FAULTS = {
    "one value": ("image", r"returns float32 of shape \(48, 48\), expected a tuple \(image, labels\)"),
    "three": ("image, labels, labels", r"returns 3 values, expected a tuple \(image, labels\)"),
    "shape": ("image[1:], labels", r"returns as image float32 of shape \(47, 48\), expected floats of shape"),
    "interpolated": (
        "image, labels * 0.5",
        r"returns as labels float32 of shape \(48, 48\), expected integers",
    ),
    "unknown label": ("image, labels + 1", r"returns the labels \[3\], expected 0 to 2"),
    "not finite": ("image / 0, labels", r"returns image that are not finite"),
    "raises": ("image.wrong, labels", r"my\.py:6: AttributeError"),
}


@pytest.mark.parametrize("fault", AUGMENT_FAULTS)
def test_what_is_wrong_with_an_augmentation_is_told(fault, tiny_config, own):
    text, told = AUGMENT_FAULTS[fault]
    path = own(f"def change(key, image, labels):\n    return {text}\n")
    config = _with(tiny_config, augment__own=f"{path}:change")
    with pytest.raises(ConfigError, match=told):
        require_sound(own_functions(config), config)


def test_in_boxes_an_augmentation_takes_the_weights_too(tiny_config, own):
    boxed = dataclasses.replace(tiny_config, target=Target(tiny_config.labels, "reference"))
    plain = own("def change(key, image, labels):\n    return image, labels\n")
    config = _with(boxed, augment__own=f"{plain}:change")
    with pytest.raises(ConfigError, match=r"expected a function of \(key, image, labels, weights\)"):
        require_sound(own_functions(config), config)
    for each in (boxed, tiny_config):  # One that moves all maps fits both.
        config = _with(each, augment__own=f"{own(MIRROR)}:mirror")
        require_sound(own_functions(config), config)


def test_no_such_file_and_no_such_form(tmp_path):
    with pytest.raises(
        ConfigError, match=r"loss.own is .*gone.py:f', but .*gone.py cannot be read \(No such file"
    ):
        own_functions(_with(Config(), loss__own=f"{tmp_path}/gone.py:f"))
    for text in ("my.py", "my:f", "my.py:", "my.py:f()", "focal"):
        with pytest.raises(
            ConfigError, match=r"loss.own is .*, expected FILE.py:function, as in my.py:focal"
        ):
            Loss(own=text)
    with pytest.raises(ConfigError, match="one of them above 0 unless there is a loss.own"):
        Loss(dice=0.0, cross_entropy=0.0)


def test_a_changed_file_is_noticed_as_a_changed_config_is(one_view, copied, tmp_path, monkeypatch):
    config, run = copied[0], shutil.copytree(copied[1] / "run", tmp_path / "run")
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    loaded = own_functions(config)["loss.own"]
    assert facts["own"] == {"loss.own": {"function": "loss", "sha256": loaded.sha256}}
    # The same function in another place is the same, for a run and for a sweep.
    path = tmp_path / "elsewhere" / "other.py"
    path.parent.mkdir()
    path.write_bytes(loaded.path.read_bytes())
    monkeypatch.chdir(path.parent)
    same = dataclasses.replace(config, loss=dataclasses.replace(config.loss, own="other.py:loss"))
    assert train(same, run, quiet=True)["axial"].finished
    assert _training_fields(same) == _training_fields(config) != _training_fields(one_view)
    path.write_text(path.read_text(encoding="utf-8").replace("return -(", "return  ("), encoding="utf-8")
    assert _training_fields(config) != _training_fields(same)
    told = (
        r"differs in: loss.own .*, now other.py:loss, the code of loss.own \(other.py:loss\); choose another"
    )
    with pytest.raises(CheckpointError, match=told):
        train(same, run, quiet=True)
    # The ways on: the values of that run, here its file, or force.
    assert train(config, run, quiet=True)["axial"].finished
    assert train(same, run, quiet=True, resume="force")["axial"].finished
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert any("the code of loss.own" in text for text in facts["forced"])
    assert facts["own"]["loss.own"]["sha256"] == own_functions(same)["loss.own"].sha256 != loaded.sha256


def test_a_file_that_changes_within_a_process_is_compiled_anew(own):
    """Of the same length and time, so that no cache of compiled files may hide it."""
    compiled = jax.jit(segmentation_loss, static_argnames=("weights", "own"))
    logits, labels = jnp.ones((1, 2, 2, 2)), jnp.ones((1, 2, 2), jnp.uint8)
    found, only = [], Loss(dice=0.0, cross_entropy=0.0, own="my.py:loss")
    for sign in ("-(", " ("):
        path = own(ENTROPY.replace("-(", sign))
        os.utime(path, (1, 1))
        function = own_functions(_with(Config(), loss__own=f"{path}:loss"))["loss.own"]
        found.append(float(compiled(logits, labels, only, own=function)))
    assert found[0] == pytest.approx(np.log(2)) and found[1] == -found[0]


def test_a_sweep_without_own_functions_is_what_it_was_before_there_were():
    fields = _training_fields(Config())
    assert "own" not in fields["loss"] and "own" not in fields["augment"]
    assert set(to_dict(Config())["loss"]) - set(fields["loss"]) == {"own"}


def test_a_model_is_used_and_passed_on_without_the_file(copied, tmp_path, phantom_scans):
    run = shutil.copytree(copied[1] / "run", tmp_path / "run")
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["config"]["loss"]["own"] = f"{tmp_path}/gone.py:loss"
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    model = liverjax.load_model(run)
    write_bundle(tmp_path / "model.safetensors", model, licence="CC0", dtype="float32")
    assert read_facts(tmp_path / "model.safetensors")["config"].loss.own == "gone.py:loss"
    assert str(tmp_path).encode() not in (tmp_path / "model.safetensors").read_bytes()
    scan = phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz"
    one, other = (m.predict(scan) for m in (model, liverjax.load_model(tmp_path / "model.safetensors")))
    assert np.array_equal(one.labels.voxels, other.labels.voxels)


def test_the_flag_of_the_command(one_view, own, train_command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(own(ENTROPY).parent)
    words = train_command(one_view, tmp_path / "run")[3:]
    assert main([*words, "--config.loss.own=my.py:lss"]) == 1
    assert (
        capsys.readouterr().err
        == "liverjax: error: my.py: has no function 'lss', as loss.own names it; did you mean 'loss'?\n"
    )
    assert main([*words, "--config.loss.own=my.py:loss"]) == 0
    assert pathlib.Path("run/axial/best").is_dir()
