Feature: A host is emptied before somebody takes it away
  What may run elsewhere is ended in good order, and only then started elsewhere. What stays says why.

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts

  Scenario: A drain moves everything, says when, and leaves a host that may be provisioned anew
    Given terraform has applied 4 microVMs
    And somebody watches every host for second copies
    When an operator drains the host of "vm-0"
    Then flintctl says that it is drained, and since when
    And nothing is left on that host
    And every microVM is ready within 10 seconds
    And no microVM ever ran twice
    And that host is ready for re-provisioning within 10 seconds
    And a plan is empty, with and without refresh

  Scenario: One that cannot move keeps a drain from being done, and is shut down by a maintenance
    Given terraform has applied 2 microVMs, and one "pet" that is pinned to the host of "vm-0"
    When an operator drains the host of "vm-0"
    Then flintctl says that it is not drained, because of "pet"
    And "pet" still runs there
    When an operator puts that host into maintenance
    Then flintctl says that it is in maintenance
    And nothing runs on that host
    When the operator uncordons it
    Then microVM "pet" is in sync and running within 10 seconds
    And a plan is empty, with and without refresh

  Scenario: The leader is killed in the middle of a drain
    Given terraform has applied 4 microVMs
    And somebody watches every host for second copies
    And the host of "vm-0" is slow to end it
    When an operator drains that host and the leader is killed in the middle of it
    Then the host is drained within 60 seconds
    And every microVM is ready within 20 seconds
    And no microVM ever ran twice
    And each of them was moved at most once
