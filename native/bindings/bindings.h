// What the files of the Python module share (small: a contract).
#pragma once

#include <nanobind/nanobind.h>

#include "engine/engine.h"

void bind_forward(nanobind::module_& m, nanobind::class_<pophood::Engine>& engine);
void bind_training(nanobind::module_& training);
