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

WEIGHTS, GRAPH = "model.safetensors", "localizer.onnx"
DAMAGES = {}


def damage(function):
    DAMAGES[function.__name__] = function
    return function


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


def in_header(name, /, **changes):
    """A damage: other values at the top of the header."""

    def spoil(folder):
        rewrite(folder, header=lambda header: header.update(changes))

    spoil.__name__ = name
    damage(spoil)


def in_stage(name, number, /, **changes):
    """A damage: other values in the architecture of a stage."""

    def spoil(folder):
        rewrite(folder, header=lambda header: header["model"]["stages"][number].update(changes))

    spoil.__name__ = name
    damage(spoil)


class Payload:
    """An object that runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


# Files that are none.


@damage
def damaged_weights(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1000] ^= 255
    (folder / WEIGHTS).write_bytes(data)


@damage
def cut_weights(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


@damage
def empty_weights(folder):
    (folder / WEIGHTS).write_bytes(b"")


@damage
def huge_header(folder):
    (folder / WEIGHTS).write_bytes(b"\xff" * 64)


@damage
def header_that_is_nested_without_end(folder):
    text = b'{"__metadata__": ' + b"[" * 100_000
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text)


@damage
def header_that_is_a_list(folder):
    (folder / WEIGHTS).write_bytes((2).to_bytes(8, "little") + b"[]")


@damage
def header_that_is_not_text(folder):
    (folder / WEIGHTS).write_bytes((4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc")


@damage
def tensor_beyond_the_file(folder):
    data = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    header[name]["data_offsets"][1] += 1 << 40
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@damage
def pickled_weights(folder):
    (folder / WEIGHTS).write_bytes(pickle.dumps(Payload(folder / "ran")))


@damage
def torch_archive(folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(folder / "ran")))
    (folder / WEIGHTS).write_bytes(buffer.getvalue())


@damage
def pickled_graph(folder):
    (folder / GRAPH).write_bytes(pickle.dumps(Payload(folder / "ran")))
    rewrite(folder)


@damage
def weights_without_a_header_of_ours(folder):
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, {"format": "pt"})


@damage
def weights_that_are_a_pipe(folder):
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


@damage
def weights_that_never_end(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/dev/zero")


@damage
def graph_that_never_ends(folder):
    (folder / GRAPH).unlink()
    (folder / GRAPH).symlink_to("/dev/zero")


# Headers.


@damage
def newer_schema(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data.replace(b"stn.checkpoint/1", b"stn.checkpoint/9"))


in_header("schema_that_is_no_text", schema=["stn.checkpoint/1"])
in_header("field_that_is_not_known", on_load="import os")
in_header("name_that_is_no_text", name=7)
in_header("graph_elsewhere", graphs={"../../elsewhere.onnx": "0" * 64})
in_header("no_graphs", graphs={})
in_header("boundless_margin", crop_margin=[0.3, 2.5])
in_header("negative_margin", crop_margin=[-0.3, 0.1])
in_header("margin_of_three", crop_margin=[0.1, 0.1, 0.1])
in_header("nothing_is_crooked", straight_within=1.5)
in_header("sure_beyond_all_bounds", min_confidence=7.0)
in_stage("monstrous_architecture", 0, hidden=10**9)
in_stage("monstrous_first_layer", 0, trunk="fc", input_size=[1024, 1024], widths=[8192])
in_stage("impossible_architecture", 0, widths=[])
in_stage("negative_widths", 0, widths=[-8, 16])
in_stage("endless_repetition", 0, repeat=10**6)
in_stage("volume_transform", 1, transform={"kind": "affine3d"})
in_stage("volumes_in_series_with_images", 1, transform={"kind": "affine3d"}, input_size=[16, 16, 16], angle_bins=0)
in_stage("monstrous_volumes", 0, transform={"kind": "affine3d"}, input_size=[1024, 1024, 1024], angle_bins=0)
in_stage("input_of_four_sides", 0, input_size=[8, 8, 8, 8])
in_stage("transform_that_is_not_known", 1, transform={"kind": "spiral"})
in_stage("layout_that_is_not_known", 1, transform={"kind": "tps", "layout": "ring 7"})
in_stage("input_without_pixels", 0, input_size=[0, 0])


@damage
def metrics_that_are_none(folder):
    rewrite(folder, header=lambda header: header["metrics"]["overall"].update(right="very"))


@damage
def fewer_classes(folder):
    rewrite(folder, header=lambda header: header["model"]["classifier"].update(classes=["a", "b"]))


@damage
def thousands_of_stages(folder):
    rewrite(folder, header=lambda header: header["model"].update(stages=header["model"]["stages"][:1] * 5000))


# Tensors.


@damage
def nan_weights(folder):
    def spoil(arrays):
        next(array for array in arrays.values() if array.ndim == 4)[0, 0, 0, 0] = np.nan

    rewrite(folder, tensors=spoil)


@damage
def infinite_weights(folder):
    def spoil(arrays):
        next(array for array in arrays.values() if array.ndim == 2)[0, 0] = np.inf

    rewrite(folder, tensors=spoil)


@damage
def missing_tensor(folder):
    rewrite(folder, tensors=lambda arrays: arrays.pop(next(name for name in arrays if name.endswith("head.bias"))))


@damage
def superfluous_tensor(folder):
    rewrite(folder, tensors=lambda arrays: arrays.update(more=np.zeros((3, 3), np.float32)))


@damage
def tensor_of_another_shape(folder):
    def spoil(arrays):
        name = next(name for name, array in arrays.items() if array.ndim == 2)
        arrays[name] = np.ascontiguousarray(arrays[name].T)

    rewrite(folder, tensors=spoil)


@damage
def tensor_of_another_type(folder):
    def spoil(arrays):
        name = next(name for name, array in arrays.items() if array.ndim == 2)
        arrays[name] = arrays[name].astype(np.complex64)

    rewrite(folder, tensors=spoil)


# Graphs.


@damage
def missing_graph(folder):
    (folder / GRAPH).unlink()


@damage
def graph_of_other_weights(folder):
    shutil.copy(folder / "classifier.onnx", folder / GRAPH)


@damage
def graph_of_other_outputs(folder):
    shutil.copy(folder / "classifier.onnx", folder / GRAPH)
    rewrite(folder)


@damage
def nan_graph(folder):
    def spoil(model):
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        spoilt = numpy_helper.to_array(weights).copy()
        spoilt.flat[0] = np.nan
        weights.CopyFrom(numpy_helper.from_array(spoilt, weights.name))

    rewrite_graph(folder, spoil)


def with_node(model, *arguments, **attributes):
    model.graph.node.append(helper.make_node(*arguments, **attributes))


@damage
def graph_of_chance(folder):
    rewrite_graph(folder, lambda model: with_node(model, "RandomNormal", [], ["noise"], shape=[1]))


@damage
def graph_that_branches(folder):
    inner = helper.make_graph([], "inner", [], [])
    rewrite_graph(folder, lambda model: with_node(model, "If", ["image"], ["x"], then_branch=inner, else_branch=inner))


@damage
def graph_of_a_foreign_domain(folder):
    def spoil(model):
        with_node(model, "Execute", ["image"], ["x"], domain="com.example")
        model.opset_import.append(helper.make_opsetid("com.example", 1))

    rewrite_graph(folder, spoil)


@damage
def graph_with_functions(folder):
    def spoil(model):
        inside = [helper.make_node("Relu", ["x"], ["y"])]
        model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], inside, [helper.make_opsetid("", 17)]))

    rewrite_graph(folder, spoil)


@damage
def graph_with_data_elsewhere(folder):
    model = onnx.load(folder / GRAPH)
    onnx.save(model, folder / GRAPH, save_as_external_data=True, location="data.bin", size_threshold=0)
    rewrite(folder)


@damage
def graph_that_grows(folder):
    def spoil(model):
        shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
        one = numpy_helper.from_array(np.ones(1, np.float32), "one")
        model.graph.initializer.extend([shape, one])
        with_node(model, "Expand", ["one", "shape"], ["large"])

    rewrite_graph(folder, spoil)


@damage
def graph_of_a_million_nodes(folder):
    def spoil(model):
        model.graph.node.extend(helper.make_node("Relu", ["image"], [f"r{n}"]) for n in range(20_000))

    rewrite_graph(folder, spoil)


@damage
def graph_of_volumes(folder):
    def spoil(model):
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING

    rewrite_graph(folder, spoil)


@damage
def graph_cut_short(folder):
    data = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(data[: len(data) // 2])
    rewrite(folder)
