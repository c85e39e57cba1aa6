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
