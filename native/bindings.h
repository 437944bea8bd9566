// The parts of the Python module that have a file of their own.
#pragma once

#include <nanobind/nanobind.h>

void bind_training(nanobind::module_& m);
