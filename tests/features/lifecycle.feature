Feature: A fleet is declared with Terraform
  Operators write HCL; the cluster makes it so, and a second plan has nothing to say.

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts
    And terraform has applied 3 microVMs, at most one per host

  Scenario: What was applied runs, and the plan is empty
    Then every microVM is ready within 20 seconds
    And the microVMs are spread over 3 hosts
    And a plan is empty, with and without refresh

  Scenario: A changed field is updated in place
    When memory_in_mb of microVM "vm-0" is changed to 256 and applied
    Then terraform changed 1 resource and added none
    And microVM "vm-0" runs with 256 MB within 20 seconds
    And it is still the same microVM
    And a plan is empty, with and without refresh

  Scenario: A field that cannot change makes another microVM
    When root_volume of microVM "vm-1" is changed and applied
    Then microVM "vm-1" is another one than before
    And every microVM is ready within 20 seconds
    And a plan is empty, with and without refresh

  Scenario: What exists is imported
    When microVM "vm-2" is forgotten by terraform and imported again
    Then a plan is empty, with and without refresh

  Scenario: Destroy leaves nothing
    When terraform destroys everything
    Then no host has anything within 20 seconds
    And the namespace is gone
