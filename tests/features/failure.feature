Feature: The control plane survives its own failures
  A node or an agent that dies costs at most a pause.

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts

  Scenario: The leader is killed while terraform applies
    Given 12 microVMs are declared in HCL
    When terraform applies and the leader is killed in the middle
    Then the apply succeeds
    And exactly 12 microVMs exist, on the hosts as in the state, within 20 seconds
    And a plan is empty, with and without refresh

  Scenario: An agent that restarts finds its microVMs again
    Given terraform has applied 3 microVMs
    When the agent of the host of "vm-0" is killed and started again
    Then microVM "vm-0" is in sync and running within 20 seconds
    And it was not restarted

  Scenario: A follower serves everything
    Given every request goes to one follower
    When terraform has applied 3 microVMs
    Then every microVM is ready within 20 seconds
    And the follower answers lists, why, drift, console and a watch
    When terraform destroys everything
    Then no host has anything within 20 seconds

  Scenario: A host that falls silent is given up, and microVMs that stay with it are not gone
    Given terraform has applied 3 microVMs
    When the agent of the host of "vm-0" is killed
    Then the host is suspect within 20 seconds
    And the host is fenced within 30 seconds
    And microVM "vm-0" is of drift class unreachable
    And a plan is empty, with and without refresh
    When that agent is started again
    Then microVM "vm-0" is in sync and running within 20 seconds
