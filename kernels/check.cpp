#include "kernels/check.hpp"
