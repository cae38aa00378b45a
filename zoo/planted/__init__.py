"""Small networks whose circuits are known, since they were built or trained to have them."""

from zoo.planted.networks import SEEDS, PlantedNetwork, planted

__all__ = ["SEEDS", "PlantedNetwork", "planted"]
