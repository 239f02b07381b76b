"""The demo: a real AdaptiveModel is shed, swapped and restored under real load, and every figure is measured."""
