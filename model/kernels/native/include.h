// The standard headers of a path, included before its instruction set is switched on, so that nothing of theirs is
// compiled for it.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "shapes.h"
