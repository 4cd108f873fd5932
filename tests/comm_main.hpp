// What tests under mpirun share: the session and its ranks.
//
// comm_main.cpp has main(): it starts the Session and runs the tests on every rank. The first
// failure on any rank ends all ranks with exit code 1.
#pragma once

#include "comm/communicator.hpp"
#include "comm/session.hpp"

namespace lockstep::comm::test {

Session& session();

// All ranks of the test.
Communicator& world();

}  // namespace lockstep::comm::test
