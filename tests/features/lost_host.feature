Feature: A host is lost, and what may move comes back elsewhere, once
  A silent host proves nothing. Its lease ends by itself; only then is anything started a second time.

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts
    And terraform has applied 3 microVMs that restart elsewhere, and one "pet" that never moves
    And somebody watches every host for second copies

  Scenario: A host that is lost is replaced, and comes back clean
    When the agent of the host of "vm-0" is killed
    Then the host is suspect within 8 seconds
    And microVM "vm-0" is ready on another host within 40 seconds
    And flintctl says why "vm-0" was moved
    And no microVM ever ran twice
    And a plan is empty, with and without refresh
    And flintctl shows what the host will do when it comes back
    When that agent is started again
    Then the host is ready within 20 seconds
    And it has no copy of "vm-0" within 10 seconds
    And what was shown is what happened
    And no microVM ever ran twice

  Scenario: What never moves runs on while its host is cut off
    When the agent of the host of "pet" is killed
    Then the host is fenced within 40 seconds
    And "pet" still runs there, and flintctl says that its policy keeps it there
    And a plan is empty, with and without refresh
    When that agent is started again
    Then microVM "pet" is in sync and running within 20 seconds
    And it was not restarted

  Scenario: A patient failover policy lets a host come back
    Given a failover policy "patient" that waits for 300 seconds, and that every microVM which moves names
    When the agent of the host of "vm-0" is killed
    Then the host is fenced within 40 seconds
    And flintctl says that "vm-0" waits for its host by the policy "patient"
    And a plan is empty, with and without refresh
    When that agent is started again
    Then the host is ready within 20 seconds
    And microVM "vm-0" is in sync and running within 20 seconds
    And it is where it was
    And no microVM ever ran twice

  Scenario: A frozen agent comes back too late
    When the agent of the host of "vm-0" is frozen
    Then microVM "vm-0" is ready on another host within 40 seconds
    When that agent is thawed
    Then the host is ready within 20 seconds
    And it has no copy of "vm-0" within 10 seconds
    And no microVM ever ran twice

  Scenario: The leader is lost with the host
    When the agent of the host of "vm-0" and the leader are killed at once
    Then microVM "vm-0" is ready on another host within 60 seconds
    And no microVM ever ran twice

  Scenario: Most hosts vanish at once
    When the agents of 2 hosts are killed
    Then both hosts are fenced within 40 seconds
    And flintctl says that the breaker is open
    And nothing was moved
    When the operator confirms that they are off
    Then every microVM that may move is ready on the last host within 30 seconds
