"""Problems without training: scores are computed, so strategies can be compared in minutes."""

from search.simulated.problems import PROBLEMS, Simulation, SimulationConfig, build_simulation

__all__ = ["PROBLEMS", "Simulation", "SimulationConfig", "build_simulation"]
