Feature: A group of microVMs is kept at its number and brought to the next template
  Operators declare one template and a number; the control plane makes, replaces and ends the members, and never takes
  more of them away than it may.

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts
    And the hosts and the namespace are declared
    And a group of 3 on kernel "demo/kernel:6.1", of which 1 may be unavailable, is ready within 30 seconds

  Scenario: It grows and shrinks
    When the group is declared with 6 replicas
    Then all 6 members are ready on kernel "demo/kernel:6.1" within 30 seconds
    When the group is declared with 2 replicas
    Then all 2 members are ready on kernel "demo/kernel:6.1" within 30 seconds
    And a microVM cannot be declared under a member's name
    When the group is deleted
    Then nothing is left of it within 30 seconds

  Scenario: A new kernel goes through while the leader is killed, and a bad template stops
    Given a witness counts the ready members
    When the group is declared with kernel "demo/kernel:6.6"
    And the leader is killed in the middle of the roll
    Then all 3 members are ready on kernel "demo/kernel:6.6" within 60 seconds
    And the witness saw 2 ready members or more, and 3 members or fewer
    When the group is declared with a template that no host takes
    Then the roll is paused within 30 seconds, with 2 members ready
    And flintctl says that the group is paused
    When the group is declared with kernel "demo/kernel:6.6"
    Then all 3 members are ready on kernel "demo/kernel:6.6" within 30 seconds
    And the witness saw 2 ready members or more, and 3 members or fewer
