"""What type checkers and editors read instead of __init__.py, which imports each name when it is first used."""

from alexnet.data import DataError as DataError
from alexnet.data import ImageError as ImageError
from alexnet.data import class_display_name as class_display_name
from alexnet.data import load_data as load_data
from alexnet.data import load_test_data as load_test_data
from alexnet.evaluation import EvaluationResult as EvaluationResult
from alexnet.evaluation import checkpoint_info as checkpoint_info
from alexnet.evaluation import evaluate as evaluate
from alexnet.layers import AveragePooling2D as AveragePooling2D
from alexnet.layers import GroupedConv2D as GroupedConv2D
from alexnet.layers import LocallyConnected2D as LocallyConnected2D
from alexnet.layers import LocalResponseNormalization as LocalResponseNormalization
from alexnet.layers import WithinChannelLRN as WithinChannelLRN
from alexnet.model import AlexNet as AlexNet
from alexnet.model import summarize_layers as summarize_layers
from alexnet.model import without_softmax as without_softmax
from alexnet.networks import NETWORKS as NETWORKS
from alexnet.networks import Network as Network
from alexnet.networks import register_network as register_network
from alexnet.recipe import Recipe as Recipe
from alexnet.recipe import RecipeError as RecipeError
from alexnet.recipe import check_parameters as check_parameters
from alexnet.runtime import BackendError as BackendError
from alexnet.runtime import divide_processor as divide_processor
from alexnet.runtime import import_keras as import_keras
from alexnet.runtime import restore_process as restore_process
from alexnet.runtime import tune_process as tune_process
from alexnet.saving import load_checkpoint as load_checkpoint
from alexnet.saving import save_checkpoint as save_checkpoint
from alexnet.training import Run as Run
from alexnet.training import RunError as RunError
from alexnet.training import build_model as build_model
from alexnet.training import load_or_train as load_or_train
from alexnet.training import print_versions as print_versions
from alexnet.training import read_history as read_history
from alexnet.training import train as train
from alexnet.weights import CheckpointError as CheckpointError

__version__: str
