// What a graph run shares with the call that asked for it.
#pragma once

#include "abort.h"

namespace edgeprune {

struct RunContext {
    Abort& abort;
    double graph_ms = 0;  // inside the engine so far, runs that were stopped included
};

}  // namespace edgeprune
