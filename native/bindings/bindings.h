// The parts of the Python module that have their own file (small: declarations only).
#pragma once

#include <nanobind/nanobind.h>

void bind_training(nanobind::module_& m);
