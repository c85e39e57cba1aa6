Feature: Everybody may do what a role binding says, and nothing else

  Background:
    Given a cluster of 3 nodes and 3 simulated hosts

  Scenario: A pipeline operates its own namespace
    Given a token "web-ci" that no role was given, and the namespaces "web" and "payments"
    Then "web-ci" cannot list microVMs: "token web-ci may not read MicroVM"
    When the operator's Terraform binds operator in "web" to "web-ci"
    Then "web-ci" can declare a microVM in "web" at every node within 5 seconds
    And "web-ci" cannot declare one in "payments": "holds in namespace web only"
    And flintctl tells "web-ci" why not, and what would be enough
    When the operator deletes the binding
    Then "web-ci" is refused at every node within 5 seconds

  Scenario: An API token is revoked at one node and refused at every other
    When the operator makes the API token "ci" of group "web-team" at node 1
    And the operator binds viewer to the group "web-team" at node 2
    Then "ci" can list microVMs at every node at once
    When the operator rotates "ci" at node 2, and the old secret stays good for 60 s
    Then "ci" can list microVMs at every node at once, with either secret
    When the operator revokes "ci" at node 3
    Then "ci" is nobody at every node within 1 seconds
