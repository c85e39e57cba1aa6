Feature: What nobody needs any more is collected, and says why
  The policy keeps failed microVMs for 8 seconds, and unmanaged ones for 4.

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts

  Scenario: A failed microVM is collected after its time, and one that is held is not
    Given microVMs "lost" and "kept" that no host can run
    When the operator holds "kept" because "the crash is looked at"
    Then flintctl gc plan says that "lost" waits for grace and "kept" for hold
    And "lost" is gone within 20 seconds, and its operation says why
    And "kept" is still there, and cannot be deleted: "the crash is looked at"
    When the operator releases "kept"
    Then "kept" is gone within 20 seconds, and its operation says why

  Scenario: A copy that nobody declares is reported, then ended by an order
    Given host h1 is admitted, and has a copy of ours that nobody declares, and a stranger
    Then flintctl gc plan says that the copy waits for grace and the stranger for operator
    And the copy is gone from the host within 20 seconds, and the stranger is not
    And flintctl gc status says that 1 unmanaged microVM was collected

  Scenario: The operator declares how long things are kept
    Given a GC policy that keeps failed microVMs for ever
    And microVMs "first" and "second" that no host can run
    Then flintctl gc plan says that "first" waits for policy and "second" for policy
    And "other" is refused as the name of a GC policy
    When the operator declares that failed microVMs are kept for 2 seconds
    Then "first" is gone within 20 seconds, and its operation says why
    And "second" is gone within 20 seconds, and its operation says why
