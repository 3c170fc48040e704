// Two accounts of what a task has been through, put together.
#pragma once

#include "model/task.h"

namespace farcall {

// `report` is newer than `known` (its attempt is higher), but whoever sent it may have forgotten
// earlier charges: an interchange that was killed knows the attempts of placed tasks from its disk
// and not why there had been others. Each attempt but the first stands for one charge, so what the
// report lacks is taken from `known`.
TaskHistory merged(const TaskHistory& known, const TaskHistory& report);

}  // namespace farcall
