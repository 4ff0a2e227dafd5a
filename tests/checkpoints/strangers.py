"""What may be wrong with a checkpoint from a stranger: functions that spoil a folder, by name."""

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import onnx
import safetensors
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from stn_cli.checkpoints.store import tensors_digest

INSET = {"kind": "tps", "layout": "inset 2x10 by 0.9 on 32x100"}
WEIGHTS, GRAPH = "model.safetensors", "localizer.onnx"
DAMAGES = {}


def damage(says):
    """What the refusal says, as a regular expression."""

    def named(function):
        DAMAGES[function.__name__] = (function, says)
        return function

    return named


def leave(_content):
    pass


def rewrite(folder, *, header=leave, tensors=leave):
    """Changes a checkpoint as someone would who knows its format: all digests fit again."""
    path = folder / WEIGHTS
    with safetensors.safe_open(path, "numpy") as file:
        content = json.loads(file.metadata()["stn"])
    arrays = load_file(path)
    tensors(arrays)
    content["tensors_sha256"] = tensors_digest(arrays)
    for name in content["graphs"]:
        content["graphs"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    header(content)
    save_file(arrays, path, {"stn": json.dumps(content)})


def rewrite_graph(folder, change):
    model = onnx.load(folder / GRAPH)
    changed = change(model)
    onnx.save(changed or model, folder / GRAPH)
    rewrite(folder)


def in_header(name, says, /, **changes):
    """A damage: other values at the top of the header."""

    def spoil(folder):
        rewrite(folder, header=lambda header: header.update(changes))

    spoil.__name__ = name
    damage(says)(spoil)


def in_stage(name, number, says, /, **changes):
    """A damage: other values in the architecture of a stage."""

    def spoil(folder):
        rewrite(folder, header=lambda header: header["model"]["stages"][number].update(changes))

    spoil.__name__ = name
    damage(says)(spoil)


class Payload:
    """An object that runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


# Files that are none.


@damage("the digest of its tensors differs")
def damaged_weights(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1000] ^= 255
    (folder / WEIGHTS).write_bytes(data)


@damage("is damaged")
def cut_weights(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


@damage("not a safetensors file")
def empty_weights(folder):
    (folder / WEIGHTS).write_bytes(b"")


@damage("not a safetensors file")
def huge_header(folder):
    (folder / WEIGHTS).write_bytes(b"\xff" * 64)


@damage("recursion")
def header_that_is_nested_without_end(folder):
    text = b'{"__metadata__": ' + b"[" * 100_000
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text)


@damage("no header of ours")
def header_that_is_a_list(folder):
    (folder / WEIGHTS).write_bytes((2).to_bytes(8, "little") + b"[]")


@damage("not JSON")
def header_that_is_not_text(folder):
    (folder / WEIGHTS).write_bytes((4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc")


@damage("is damaged")
def tensor_beyond_the_file(folder):
    data = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    header[name]["data_offsets"][1] += 1 << 40
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@damage("not a safetensors file")
def pickled_weights(folder):
    (folder / WEIGHTS).write_bytes(pickle.dumps(Payload(folder / "ran")))


@damage("not a safetensors file")
def torch_archive(folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(folder / "ran")))
    (folder / WEIGHTS).write_bytes(buffer.getvalue())


@damage("not a valid ONNX graph")
def pickled_graph(folder):
    (folder / GRAPH).write_bytes(pickle.dumps(Payload(folder / "ran")))
    rewrite(folder)


@damage("no header of ours")
def weights_without_a_header_of_ours(folder):
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, {"format": "pt"})


@damage("holds no checkpoint")
def weights_that_are_a_pipe(folder):
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


@damage("holds no checkpoint")
def weights_that_never_end(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/dev/zero")


@damage("is not a file")
def graph_that_never_ends(folder):
    (folder / GRAPH).unlink()
    (folder / GRAPH).symlink_to("/dev/zero")


@damage("larger than any checkpoint")
def graph_of_a_gigabyte_of_nothing(folder):
    os.truncate(folder / GRAPH, 1 << 30)


@damage("larger than any checkpoint")
def weights_of_a_gigabyte_of_nothing(folder):
    os.truncate(folder / WEIGHTS, 1 << 30)


# Headers.


@damage("surrogates")
def header_of_half_a_letter(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors, folder / WEIGHTS, {"stn": "MARK"})
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data.replace(b'"MARK"', b'"\\ud8"'.replace(b"ud8", b"ud800"), 1))


@damage("reads .stn.checkpoint/1")
def newer_schema(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data.replace(b"stn.checkpoint/1", b"stn.checkpoint/9"))


in_header("schema_that_is_no_text", "its schema is", schema=["stn.checkpoint/1"])
in_header("field_that_is_not_known", "unknown field", on_load="import os")
in_header("name_that_is_no_text", "Expected `str`", name=7)
in_header("graph_elsewhere", "its architecture has others", graphs={"../../elsewhere.onnx": "0" * 64})
in_header("no_graphs", "its architecture has others", graphs={})
in_header("boundless_margin", "crop_margin", crop_margin=[0.3, 2.5])
in_header("negative_margin", "crop_margin", crop_margin=[-0.3, 0.1])
in_header("margin_of_three", "crop_margin", crop_margin=[0.1, 0.1, 0.1])
in_header("crops_read_somehow", "crop_resample", crop_resample="sharpest")
in_header("nothing_is_crooked", "straight_within", straight_within=1.5)
in_header("second_look_at_no_spline", "second_look", second_look=True)
in_header("sure_beyond_all_bounds", "min_confidence", min_confidence=7.0)
in_stage("monstrous_architecture", 0, "beyond all reasonable size", hidden=10**9)
in_stage("monstrous_first_layer", 0, "beyond all reasonable size", trunk="fc", input_size=[1024, 1024], widths=[8192])
in_stage("impossible_architecture", 0, "make no network", widths=[])
in_stage("negative_widths", 0, "make no network", widths=[-8, 16])
in_stage("endless_repetition", 0, "repeat is 1 to 8", repeat=10**6)
in_stage("looks_between_bins", 1, "looks are 1 to 8 angles", looks=[0.0, 1.0])
in_stage("endless_looks", 1, "looks are 1 to 8 angles", looks=[0.0] * 10_000)
in_stage("looks_far_around", 1, "looks are 1 to 8 angles", looks=[0.0, 3e300])
SEES_VOLUMES = {"transform": {"kind": "affine3d"}, "angle_bins": 0, "angle_window": 0.0, "looks": [0.0]}
in_stage("volume_transform", 1, "affine3d is the transform of volumes", **SEES_VOLUMES)
in_stage("volumes_in_series_with_images", 1, "all see volumes", input_size=[16, 16, 16], **SEES_VOLUMES)
in_stage("input_of_four_sides", 0, "nets see HxW", input_size=[8, 8, 8, 8])
in_stage("transform_that_is_not_known", 1, "spiral", transform={"kind": "spiral"})
in_stage("layout_that_is_not_known", 1, "layout .ring 7.", transform={"kind": "tps", "layout": "ring 7"})
in_stage("margin_of_nothing", 1, "margin is 0.1 to 10", margin=1e-320)
in_stage("inset_beyond_the_middle", 0, "margin is below 0.5", angle_bins=0, transform=INSET)
in_stage("input_without_pixels", 0, "nets see HxW", input_size=[0, 0])


@damage("metrics")
def metrics_that_are_none(folder):
    rewrite(folder, header=lambda header: header["metrics"]["overall"].update(right="very"))


@damage("has shape")
def fewer_classes(folder):
    rewrite(folder, header=lambda header: header["model"]["classifier"].update(classes=["a", "b"]))


@damage("whose last stage votes")
def direction_of_what_does_not_vote(folder):
    rewrite(folder, header=lambda header: header["model"].update(direction={}))


@damage("beyond all reasonable size")
def thousands_of_stages(folder):
    rewrite(folder, header=lambda header: header["model"].update(stages=header["model"]["stages"][:1] * 5000))


# Tensors.


@damage("not finite")
def nan_weights(folder):
    def spoil(arrays):
        next(array for array in arrays.values() if array.ndim == 4)[0, 0, 0, 0] = np.nan

    rewrite(folder, tensors=spoil)


@damage("not finite")
def infinite_weights(folder):
    def spoil(arrays):
        next(array for array in arrays.values() if array.ndim == 2)[0, 0] = np.inf

    rewrite(folder, tensors=spoil)


@damage("is missing")
def missing_tensor(folder):
    rewrite(folder, tensors=lambda arrays: arrays.pop(next(name for name in arrays if name.endswith("head.bias"))))


@damage("of no layer")
def superfluous_tensor(folder):
    rewrite(folder, tensors=lambda arrays: arrays.update(more=np.zeros((3, 3), np.float32)))


@damage("has shape")
def tensor_of_another_shape(folder):
    def spoil(arrays):
        name = next(name for name, array in arrays.items() if array.ndim == 2)
        arrays[name] = np.ascontiguousarray(arrays[name].T)

    rewrite(folder, tensors=spoil)


@damage("unexpected type")
def tensor_of_another_type(folder):
    def spoil(arrays):
        name = next(name for name, array in arrays.items() if array.ndim == 2)
        arrays[name] = arrays[name].astype(np.complex64)

    rewrite(folder, tensors=spoil)


# Graphs.


@damage("No such file")
def missing_graph(folder):
    (folder / GRAPH).unlink()


@damage("its digest differs")
def graph_of_other_weights(folder):
    shutil.copy(folder / "classifier.onnx", folder / GRAPH)


@damage("outputs of other shapes")
def graph_of_other_outputs(folder):
    shutil.copy(folder / "classifier.onnx", folder / GRAPH)
    rewrite(folder)


@damage("sparse")
def graph_with_sparse_weights(folder):
    def spoil(model):
        values = helper.make_tensor("s", TensorProto.FLOAT, [1], [3.0])
        indices = numpy_helper.from_array(np.zeros(1, np.int64), "at")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1]))

    rewrite_graph(folder, spoil)


@damage("unknown size")
def graph_that_grows_by_what_it_sees(folder):
    def spoil(model):
        constants = {"none": np.float32(0), "many": np.float32(2**28), "one": np.ones(1, np.float32)}
        model.graph.initializer.extend(numpy_helper.from_array(np.array(v), n) for n, v in constants.items())
        with_node(model, "ReduceMax", ["image"], ["most"], keepdims=0)
        with_node(model, "Mul", ["most", "none"], ["zero"])
        with_node(model, "Add", ["zero", "many"], ["count"])
        with_node(model, "Cast", ["count"], ["whole"], to=TensorProto.INT64)
        with_node(model, "Reshape", ["whole", "row"], ["side"])
        model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "row"))
        with_node(model, "Expand", ["one", "side"], ["large"])

    rewrite_graph(folder, spoil)


@damage("not a valid ONNX graph")
def graph_with_text_for_weights(folder):
    def spoil(model):
        model.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"a"]))

    rewrite_graph(folder, spoil)


@damage("not finite")
def nan_graph(folder):
    def spoil(model):
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        spoilt = numpy_helper.to_array(weights).copy()
        spoilt.flat[0] = np.nan
        weights.CopyFrom(numpy_helper.from_array(spoilt, weights.name))

    rewrite_graph(folder, spoil)


def with_node(model, *arguments, **attributes):
    model.graph.node.append(helper.make_node(*arguments, **attributes))


@damage("RandomNormal")
def graph_of_chance(folder):
    rewrite_graph(folder, lambda model: with_node(model, "RandomNormal", [], ["noise"], shape=[1]))


@damage("operators beyond the allowed ones: If")
def graph_that_branches(folder):
    inner = helper.make_graph([], "inner", [], [])
    rewrite_graph(folder, lambda model: with_node(model, "If", ["image"], ["x"], then_branch=inner, else_branch=inner))


@damage("Execute")
def graph_of_a_foreign_domain(folder):
    def spoil(model):
        with_node(model, "Execute", ["image"], ["x"], domain="com.example")
        model.opset_import.append(helper.make_opsetid("com.example", 1))

    rewrite_graph(folder, spoil)


@damage("functions")
def graph_with_functions(folder):
    def spoil(model):
        inside, opset = [helper.make_node("Relu", ["x"], ["y"])], helper.make_opsetid("", 17)
        model.functions.append(helper.make_function("unused", "Mine", ["x"], ["y"], inside, [opset]))
        model.opset_import.append(helper.make_opsetid("unused", 1))

    rewrite_graph(folder, spoil)


@damage("data.bin")
def graph_with_data_elsewhere(folder):
    model = onnx.load(folder / GRAPH)
    onnx.save(model, folder / GRAPH, save_as_external_data=True, location="data.bin", size_threshold=0)
    rewrite(folder)


@damage("1099511627776 elements")
def graph_that_grows(folder):
    def spoil(model):
        shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
        one = numpy_helper.from_array(np.ones(1, np.float32), "one")
        model.graph.initializer.extend([shape, one])
        with_node(model, "Expand", ["one", "shape"], ["large"])

    rewrite_graph(folder, spoil)


@damage(r"\d{5} nodes, more than any net")
def graph_of_twenty_thousand_nodes(folder):
    def spoil(model):
        model.graph.node.extend(helper.make_node("Relu", ["image"], [f"r{n}"]) for n in range(20_000))

    rewrite_graph(folder, spoil)


@damage("unknown size")
def graph_of_volumes(folder):
    def spoil(model):
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING

    rewrite_graph(folder, spoil)


@damage("not a valid ONNX graph")
def graph_cut_short(folder):
    data = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(data[: len(data) // 2])
    rewrite(folder)
