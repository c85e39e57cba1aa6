Feature: What nobody needs any more is collected, and says why
  The policy keeps failed microVMs, unmanaged ones and what is left of microVMs for 15 seconds.

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts

  Scenario: A failed microVM is collected after its time, and one that is held is not
    Given microVMs "lost" and "kept" that no host can run
    When the operator holds "kept" because "the crash is looked at"
    Then flintctl gc plan says that "lost" waits for grace and "kept" for hold
    And "lost" is gone within 40 seconds, and its operation says why
    And "kept" is still there, and cannot be deleted: "the crash is looked at"
    When the operator releases "kept"
    Then "kept" is gone within 40 seconds, and its operation says why

  Scenario: A copy that nobody declares is reported, then ended by an order
    Given host h1 is admitted, and has a copy of ours that nobody declares, and a stranger
    Then flintctl gc plan says that the copy waits for grace and the stranger for operator
    And the copy is gone from the host within 40 seconds, and the stranger is not
    And flintctl gc status says that 1 unmanaged microVM was collected

  Scenario: The operator declares how long things are kept
    Given a GC policy that keeps failed microVMs for ever
    And microVMs "first" and "second" that no host can run
    Then flintctl gc plan says that "first" waits for policy and "second" for policy
    And "other" is refused as the name of a GC policy
    When the operator declares that failed microVMs are kept for 2 seconds
    Then "first" is gone within 40 seconds, and its operation says why
    And "second" is gone within 40 seconds, and its operation says why

  Scenario: What microVMs left on a host goes in its time, unless it is held or is not ours
    Given host h1 is admitted, and a tap, volumes in quarantine and a folder without a mark are left there
    Then flintctl gc plan says that the tap waits for grace and the folder for operator
    When the operator holds the volumes because "somebody wants the data back"
    Then the tap is gone from the host within 40 seconds, and the folder is not
    And flintctl gc plan says that the volumes wait for hold
    When the operator releases the volumes
    Then the volumes are gone from the host within 40 seconds, and the folder is not
    And flintctl gc status says that 1 leftover and 1 kept volume were collected

  Scenario: What a restore forgot is adopted, and runs on
    Given a GC policy that keeps failed microVMs for ever
    And host h1 runs a microVM of this cluster that nobody declares any more
    When the operator asks whether it may be adopted as "found"
    Then nothing is declared
    When the operator adopts it as "found"
    Then "found" is ready on h1 within 20 seconds, and its guest was never stopped
    And it cannot be adopted again
