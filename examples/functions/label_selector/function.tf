data "flintlock_microvms" "front" {
  labels = provider::flintlock::label_selector("app=web,tier=front")
}
