Feature: A microVM has one running copy, and comes back, whatever happens to hosts, nodes and networks
  Guests count aloud, over the network and on their consoles; what they said is the judge's only evidence.

  Background:
    Given 3 nodes, 4 hosts, and 4 microVMs that restart elsewhere

  @short
  Scenario: A host is cut off
    Given "pet", which never moves, runs beside "vm-0"
    When the host of "vm-0" is cut off
    Then every microVM that may move and was there runs elsewhere within 45 seconds
    And "pet" runs on where it was
    When the network is whole again
    Then every host is ready within 40 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

  @short
  Scenario: The nodes are split 2 to 1 with hosts on both sides
    When the leader and 2 hosts, that of "vm-0" among them, are split from the rest
    Then every microVM that may move and was there runs elsewhere within 60 seconds
    When the network is whole again
    Then every host is ready within 40 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

  @short
  Scenario: A host loses its power and comes back
    When the host of "vm-0" loses its power
    Then every microVM that may move and was there runs elsewhere within 45 seconds
    When that host gets its power back
    Then every host is ready within 40 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

  Scenario: A host loses its power and its disk
    When the host of "vm-0" loses its power
    Then every microVM that may move and was there runs elsewhere within 45 seconds
    When that host gets its power back, with an empty disk
    Then every host is ready within 40 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

  Scenario: The leader is cut off
    When the leader is cut off
    Then nothing is restarted within 20 seconds
    When the network is whole again
    Then everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

  Scenario Outline: A host is cut off in one direction
    When the host of "vm-0" <fault>
    Then every microVM that may move and was there runs elsewhere within 45 seconds
    When the network is whole again
    Then every host is ready within 40 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

    Examples:
      | fault        |
      | hears nobody |
      | is not heard |

  Scenario: Packets are lost everywhere
    When 40 percent of all packets between nodes and hosts are lost for 40 seconds
    And the network is whole again
    Then every host is ready within 60 seconds
    And everything runs once, where the API says, within 60 seconds
    And no microVM had two copies

  Scenario Outline: An agent is gone, and its watchdog ends what may not run
    When the agent of the host of "vm-0" is <gone>
    Then every microVM that may move and was there runs elsewhere within 45 seconds
    When that agent is <back>
    Then every host is ready within 40 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

    Examples:
      | gone   | back          |
      | killed | started again |
      | frozen | thawed        |

  Scenario Outline: A watchdog is gone, and its agent replaces it
    When the watchdog of the host of "vm-0" is <gone>
    Then another watchdog is there within 10 seconds
    And nothing is restarted within 20 seconds
    When the host of "vm-0" is cut off
    Then every microVM that may move and was there runs elsewhere within 45 seconds
    When the network is whole again
    Then every host is ready within 40 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

    Examples:
      | gone   |
      | killed |
      | frozen |

  Scenario Outline: A node is gone
    When <which> is <gone>
    Then nothing is restarted within 20 seconds
    When every node runs again
    Then everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

    Examples:
      | which      | gone   |
      | the leader | killed |
      | the leader | frozen |
      | a follower | killed |
      | a follower | frozen |

  Scenario: QEMU is killed
    When QEMU of "vm-0" is killed
    Then "vm-0" runs as a new copy within 40 seconds
    And everything runs once, where the API says, within 20 seconds
    And no microVM had two copies

  Scenario: QEMU is frozen
    When QEMU of "vm-0" is frozen
    Then "vm-0" is heard again within 40 seconds
    And everything runs once, where the API says, within 20 seconds
    And no microVM had two copies

  @spoils
  Scenario Outline: Wall clocks jump
    Given the wall clocks of nodes and agents can be set
    When the wall clocks of <whose> jump by <seconds> seconds
    Then nothing is restarted within 20 seconds
    When the host of "vm-0" is cut off
    Then every microVM that may move and was there runs elsewhere within 60 seconds
    When the network is whole again
    Then every host is ready within 60 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

    Examples:
      | whose             | seconds |
      | the leader        | 86400   |
      | every other agent | -3600   |

  @spoils
  Scenario: Recovery and the time of leases are changed while a host is cut off
    Given "pet", which never moves, runs beside "vm-0"
    When the host of "vm-0" is cut off
    And "pet" is told to restart elsewhere
    And every node is restarted with leases of 20 seconds
    Then every microVM that may move and was there runs elsewhere within 90 seconds
    And "pet" runs on where it was
    When the network is whole again
    Then every host is ready within 60 seconds
    And everything runs once, where the API says, within 40 seconds
    And no microVM had two copies

  @spoils
  Scenario: An older snapshot is restored while hosts run
    Given a snapshot is saved
    When the host of "vm-0" is cut off
    Then every microVM that may move and was there runs elsewhere within 45 seconds
    When the network is whole again
    Then every host is ready within 40 seconds
    When every node is killed and restored from the snapshot
    Then every host is ready within 90 seconds
    And everything runs once, where the API says, within 90 seconds
    And no microVM had two copies

  Scenario: The whole control plane is gone
    Given "pet", which never moves, runs beside "vm-0"
    When every node is killed
    Then everything that may move has ended within 15 seconds
    And "pet" runs on where it was
    When the outage has lasted as long as planned
    Then "pet" runs on where it was
    When every node runs again
    Then every host is ready within 60 seconds
    And everything runs once, where the API says, within 60 seconds
    And no microVM had two copies

  @spoils
  Scenario: An agent whose watchdog is deaf is found out
    The judge can fail: this build lets guests run after the end of their lease.
    Given the agent of the host of "vm-0" has a watchdog that takes no notice of the end of leases
    When the host of "vm-0" is cut off
    Then every microVM that may move and was there runs elsewhere within 45 seconds
    And the judge finds a second copy of each within 10 seconds
