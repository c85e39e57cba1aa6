Feature: Drift is seen and repaired
  What changes behind the control plane's back is repaired or reported, as each microVM's policy says.

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts
    And terraform has applied 3 microVMs

  Scenario: A microVM under "repair" heals by itself
    When microVM "vm-0" is killed behind our back
    Then microVM "vm-0" is ready again within 15 seconds, started anew
    And a plan is empty, with and without refresh

  Scenario: A paused microVM under "repair" is resumed
    When microVM "vm-0" is paused behind our back
    Then microVM "vm-0" is in sync and running within 15 seconds

  Scenario: A microVM under "report" is shown, left alone, and repaired by apply
    Given microVM "vm-1" has drift_policy "report"
    When microVM "vm-1" is killed behind our back
    Then flintctl drift names /spec/power_state of "vm-1" within 15 seconds and exits with 2
    And a plan exits with 2 and shows power_state
    When terraform applies
    Then microVM "vm-1" is in sync and running within 15 seconds
    And a plan is empty, with and without refresh

  Scenario: What nobody declared is reported and left alone
    When a microVM "stray" appears on host "h1" that nobody declared
    Then flintctl drift shows it as unmanaged within 15 seconds
    And it is still there after the host's next two looks
