"""What is wrong with the files of a model."""

from __future__ import annotations

from headrace.resources.errors.tree import AlreadyExists, FailedPrecondition


class ArtifactsNotFound(FailedPrecondition):
    """The weights' address leads nowhere, or may not be read."""

    code = "ARTIFACTS_NOT_FOUND"


class SchemeNotSupported(FailedPrecondition):
    """The weights' address has a scheme for which no driver is installed."""

    code = "SCHEME_NOT_SUPPORTED"


class ConfigMissing(FailedPrecondition):
    """The folder has no ``config.json``."""

    code = "CONFIG_MISSING"


class ConfigInvalid(FailedPrecondition):
    """``config.json`` is not JSON, or lacks what every model needs."""

    code = "CONFIG_INVALID"


class WeightsMissing(FailedPrecondition):
    """The folder has no weights, or its index names files that are not there."""

    code = "WEIGHTS_MISSING"


class WeightsTruncated(FailedPrecondition):
    """A safetensors file is shorter than its header says."""

    code = "WEIGHTS_TRUNCATED"


class WeightsCorrupt(FailedPrecondition):
    """A safetensors header cannot be what a writer of the format wrote."""

    code = "WEIGHTS_CORRUPT"


class WeightsQuantised(FailedPrecondition):
    """The weights are quantised; import takes 16- and 32-bit floating point."""

    code = "WEIGHTS_QUANTISED"


class TokenizerMissing(FailedPrecondition):
    """The folder has no tokenizer."""

    code = "TOKENIZER_MISSING"


class TokenizerInvalid(FailedPrecondition):
    """The folder's tokenizer cannot be read."""

    code = "TOKENIZER_INVALID"


class TokenizerMismatch(FailedPrecondition):
    """The tokenizer has tokens for which the model has no embedding."""

    code = "TOKENIZER_MISMATCH"


class SpecialTokensOutside(FailedPrecondition):
    """Special tokens lie outside the model's vocabulary."""

    code = "SPECIAL_TOKENS_OUTSIDE"


class ArchitectureUnsupported(FailedPrecondition):
    """No installed runtime knows the model's architecture."""

    code = "ARCHITECTURE_UNSUPPORTED"


class ArtifactsChanged(FailedPrecondition):
    """The files at the weights' address are no longer those that were registered."""

    code = "ARTIFACTS_CHANGED"


class ArtifactsCorrupt(FailedPrecondition):
    """A file did not arrive as its store says that it is."""

    code = "ARTIFACTS_CORRUPT"


class ArtifactsRefused(FailedPrecondition):
    """A file at the weights' address leads out of its folder, or is not one that may be read."""

    code = "ARTIFACTS_REFUSED"


class WeightsPickled(FailedPrecondition):
    """The weights are pickles (``*.bin``), which are read and never run."""

    code = "WEIGHTS_PICKLED"


class PickleUnsafe(FailedPrecondition):
    """A pickle asks for something that is no part of a tensor: loading it would run code."""

    code = "PICKLE_UNSAFE"


class ChatTemplateMissing(FailedPrecondition):
    """The tokenizer has no chat template: a base model, or a template that was left behind."""

    code = "CHAT_TEMPLATE_MISSING"


class ChatTemplateInvalid(FailedPrecondition):
    """The chat template, the folder's or one given with the deployment, does not parse, or does not end."""

    code = "CHAT_TEMPLATE_INVALID"


class ChatTemplateLimited(FailedPrecondition):
    """The chat template refuses some conversations, or leaves out whose turn it is."""

    code = "CHAT_TEMPLATE_LIMITED"


class CustomCodeIgnored(FailedPrecondition):
    """The folder brings Python code of its own, which is not executed: nobody allowed it."""

    code = "CUSTOM_CODE_IGNORED"


class CustomCodeAllowed(FailedPrecondition):
    """The folder brings Python code of its own, and an operator lets it run."""

    code = "CUSTOM_CODE_ALLOWED"


class CustomCodeMissing(FailedPrecondition):
    """The folder's own code is to run, and it is not there."""

    code = "CUSTOM_CODE_MISSING"


class ConversionFailed(FailedPrecondition):
    """The weights could not be converted to the format that the runtime reads."""

    code = "CONVERSION_FAILED"


class NothingToConvert(FailedPrecondition):
    """The folder is in the form already that a conversion would make of it."""

    code = "NOTHING_TO_CONVERT"


class DestinationNotEmpty(AlreadyExists):
    """Where a folder is to be written there is something already."""

    code = "DESTINATION_NOT_EMPTY"


class IndexMissing(FailedPrecondition):
    """Engines would not find the weights: there are several files and no index, or one of another name."""

    code = "INDEX_MISSING"


class TimeSeriesConfig(FailedPrecondition):
    """A time-series model's configuration is missing, or disagrees with itself or with the weights."""

    code = "TIME_SERIES_CONFIG"


class ArchitectureUnknown(FailedPrecondition):
    """The doctor's table does not know the model's architecture."""

    code = "ARCHITECTURE_UNKNOWN"


class ShapeMismatch(FailedPrecondition):
    """Tensors are not shaped as ``config.json`` says."""

    code = "SHAPE_MISMATCH"


class TensorsMissing(FailedPrecondition):
    """Tensors that every model of the architecture has are not in the files."""

    code = "TENSORS_MISSING"


class TensorsUnrecognised(FailedPrecondition):
    """Most tensors do not have the names that the architecture gives them."""

    code = "TENSORS_UNRECOGNISED"


class LayersUnexpected(FailedPrecondition):
    """The files hold layers that ``config.json`` does not count."""

    code = "LAYERS_UNEXPECTED"


class OutputHeadMissing(FailedPrecondition):
    """The model has no output head, and may not use its embedding as one."""

    code = "OUTPUT_HEAD_MISSING"


class OutputHeadIgnored(FailedPrecondition):
    """The model brings an output head that no engine loads."""

    code = "OUTPUT_HEAD_IGNORED"


class TensorNotFinite(FailedPrecondition):
    """A sample of the weights holds NaN or infinity."""

    code = "TENSOR_NOT_FINITE"


class WeightsFormat(FailedPrecondition):
    """The metadata of a safetensors file does not say that its format is PyTorch's."""

    code = "WEIGHTS_FORMAT"


class TensorsDuplicated(FailedPrecondition):
    """A tensor is in more than one weight file."""

    code = "TENSORS_DUPLICATED"


class TensorsUnindexed(FailedPrecondition):
    """The weight files hold tensors that the index does not name."""

    code = "TENSORS_UNINDEXED"


class DtypeMixed(FailedPrecondition):
    """The weight matrices are of several floating-point types."""

    code = "DTYPE_MIXED"


class DtypeMismatch(FailedPrecondition):
    """The weights are of another type than ``config.json`` names."""

    code = "DTYPE_MISMATCH"


class NotCertified(FailedPrecondition):
    """The software specification that was asked for is not certified for the model's architecture."""

    code = "NOT_CERTIFIED"


class NativeQuantisation(FailedPrecondition):
    """A listed base model is in the quantised format in which its publisher releases it."""

    code = "NATIVE_QUANTISATION"


class LicenceNotAccepted(FailedPrecondition):
    """The publisher of the weights asks for its licence to be accepted, and the request does not accept it."""

    code = "LICENCE_NOT_ACCEPTED"


class VersionNotReady(FailedPrecondition):
    """The version's files are not all here, or its registration failed."""

    code = "VERSION_NOT_READY"


class FlavourNotSupported(FailedPrecondition):
    """An MLflow model has no flavour that a runtime here serves."""

    code = "FLAVOUR_NOT_SUPPORTED"


class InstructOnly(FailedPrecondition):
    """Of this family only the models that follow instructions are deployed from the catalogue."""

    code = "INSTRUCT_ONLY"
